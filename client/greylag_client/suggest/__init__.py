"""Recipes that a model expects to reach a target, found by search inside constraints."""
