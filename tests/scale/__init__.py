"""Whether the service stays as fast with many episodes: ``make scale``, and a quick form of it that counts commands."""
