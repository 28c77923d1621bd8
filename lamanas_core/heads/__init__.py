"""Heads: they map features to logits."""
