"""Loss networks L_φ with parameters φ."""
