"""What a control-plane node holds: archive, static pods, PKI, encryption at rest."""
