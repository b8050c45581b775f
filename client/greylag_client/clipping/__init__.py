"""Gradients of units of privacy through any model: measured and added without being stored."""
