"""The task that meta-training is timed on."""

import torch

from benchmarks.adapt import decoded_images, stacked
from lamanas_core.config import Config
from lamanas_core.data.episodes import Episode, to_float


def task_of(config: Config) -> Episode:
    """20-way 5-shot as the paper's linear head takes it, 5 queries a class; ``serving`` trains on 2 a class."""
    network = config.network
    queries = 5 if network.head == "linear" else 2
    images, labels = decoded_images(network.ways, 5 + queries)
    everything = to_float(torch.from_numpy(stacked(images, network.image)))
    targets = torch.from_numpy(labels)
    in_support = torch.arange(len(targets)) % (5 + queries) < 5
    return Episode(
        everything[in_support], targets[in_support], everything[~in_support], targets[~in_support], network.ways
    )
