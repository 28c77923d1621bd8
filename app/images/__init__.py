"""Parses, checks and decodes the images of a request."""
