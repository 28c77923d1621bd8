"""LAMANAS: few-shot image classification with meta-learned weights, architecture and loss.

``images``, ``image_spec``, ``layout``, ``artifact``, ``genotype``, ``files``, ``config``, ``recipe`` and
``data.sources.glyphs`` do not import torch: they suffice to read images and to run adapted classifiers. All other
modules train or adapt and need torch.
"""
