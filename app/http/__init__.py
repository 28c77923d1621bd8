"""What holds for every request: who asks, limits, refusals, streams."""
