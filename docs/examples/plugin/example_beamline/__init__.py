"""What the example beamline adds to BEC."""
