"""``verify-release``: whether a release is what its lead says it is, before any of it is used."""
