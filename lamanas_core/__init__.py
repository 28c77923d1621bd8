"""LAMANAS: few-shot image classification with meta-learned weights, architecture and loss.

``images``, ``image_spec``, ``artifact``, ``genotype``, ``files``, ``config`` and ``data.sources.glyphs`` read images
and run finished classifiers; they need no torch. Everything else learns.
"""
