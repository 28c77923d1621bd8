"""The search space: operations, architecture parameters α, normalisation, and the supernet."""
