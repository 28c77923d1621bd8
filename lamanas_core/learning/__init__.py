"""The half of the core that learns: search space, losses, task learner, meta learners, data, artifacts (torch)."""
