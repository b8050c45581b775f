"""Predictions for firms by the Open Inference Protocol: ``greylag-server serve-model``."""
