"""Meta-training runs: their loop, tasks, folder and checkpoints."""
