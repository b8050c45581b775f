"""``try``: a plan rehearsed on the firm's own data, before consent. Nothing is reserved or sent."""
