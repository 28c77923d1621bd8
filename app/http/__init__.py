"""HTTP concerns shared by all routes: authentication, limits, error responses and event streams."""
