"""The state of everything, in Redis. Celery's messages only wake workers up."""
