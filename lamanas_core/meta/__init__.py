"""The meta learners Ψ: what one task asks of everything that is meta-learned."""
