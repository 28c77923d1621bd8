"""Results that stay as they are until somebody changes them on purpose: ``python -m tests.goldens.record`` writes the
files of this folder anew, and the diff shows what has changed."""
