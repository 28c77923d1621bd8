"""LAMANAS: few-shot image classification with meta-learned weights, architecture and loss.

The modules of this package proper read images and run finished classifiers; they need no torch.
Everything that learns is in ``lamanas_core.learning``.
"""
