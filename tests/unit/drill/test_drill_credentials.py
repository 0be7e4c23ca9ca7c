"""Certificates for one drill."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from etcdkeep.drill.credentials import make_credentials
from tests.builders import NOW


@pytest.mark.parametrize("side", ["server", "client"])
def test_a_pair_is_of_its_own_authority_and_short_lived(side):
    made = make_credentials(NOW)
    pair = getattr(made, side)
    authority = x509.load_pem_x509_certificate(made.authority)
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    certificate.verify_directly_issued_by(authority)
    assert serialization.load_pem_private_key(pair.key, None).public_key() == certificate.public_key()
    assert certificate.not_valid_before_utc < NOW < certificate.not_valid_after_utc < NOW + timedelta(days=3)


def test_no_two_drills_share_anything():
    assert make_credentials(NOW) != make_credentials(NOW)
    assert make_credentials(NOW).authority != make_credentials(NOW).authority


def test_a_key_does_not_show_when_credentials_are_printed():
    made = make_credentials(NOW)
    assert "PRIVATE" not in repr(made)
