"""The meta-learners Ψ: the meta-gradient of one task with respect to all meta-parameters."""
