"""Data sets, splits, episodes and augmentation."""
