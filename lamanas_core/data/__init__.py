"""Images as classes, splits and episodes, and what changes them at random."""
