"""What the vendor says of its own procedure; shown to the approvers."""

LIMITS = (
    "It restores no application data and no PersistentVolumes.",
    "Workloads scheduled after the backup do not come back.",
    "It does not undo a failed upgrade, and does not bring a deleted cluster back.",
    "It is the last resort for a broken cluster: while a quorum of members is healthy, no restore is needed.",
    "It is not for clusters with *advanced cluster* enabled: those have the vendor's own tool.",
)
