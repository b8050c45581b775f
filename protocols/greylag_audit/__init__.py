"""The auditor's shell around the protocol core."""
