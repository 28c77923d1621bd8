"""Golden results, which change only on purpose.

``python -m tests.goldens.record`` rewrites the files in this folder, and their diff shows what has changed.
"""
