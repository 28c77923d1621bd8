"""The task learner Φ_K: from a support set to an adapted classifier."""
