"""Meta-training runs: the loop, tasks, run folders and checkpoints."""
