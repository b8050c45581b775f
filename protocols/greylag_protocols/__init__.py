"""What all parties must agree on. Pure: no clock, files, network or entropy of its own."""
