"""A firm's own version of a shared model: fitted to its own rows, after the run, for itself."""
