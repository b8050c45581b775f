"""The firm's agent: policy, ledger, data, training."""
