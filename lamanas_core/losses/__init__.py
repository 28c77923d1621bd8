"""Loss networks φ."""
