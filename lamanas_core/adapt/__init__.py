"""The task learner Φ_K: adapts a meta-model to a support set and exports the resulting classifier."""
