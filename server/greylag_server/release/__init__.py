"""Releases: the gate that a model passes, what is written of it, and its versions in the log."""

from greylag_server.release.facts import privacy_facts, wider_facts

__all__ = ["privacy_facts", "wider_facts"]
