"""Predictions from the classifiers of finished episodes."""
