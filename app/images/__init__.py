"""The way of an image from the body of a request to an array."""
