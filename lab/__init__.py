"""
A stand-in site on one machine: real etcd, real SSH, a real object store, and a Kubernetes API that keeps its objects in
that etcd. For tests and the demo; the product never imports it.

>>> with Lab("/tmp/lab") as site:
...     site.clusters["harbor"].kubectl("get", "nodes")
"""

from lab.faults import Fault, Faults
from lab.site import Lab, Site

__all__ = ["Fault", "Faults", "Lab", "Site"]
