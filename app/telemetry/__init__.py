"""What the app and the workers tell of themselves while they run: logs and traces. Both import this."""
