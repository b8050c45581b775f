"""``doctor``: what could keep this firm's agent from its work, and what to do about it."""
