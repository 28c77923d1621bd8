"""The task on which meta-training is timed."""

import torch

from benchmarks.adapt import decoded_images, stacked
from lamanas_core.config import Config
from lamanas_core.data.episodes import Episode, to_float


def task_of(config: Config) -> Episode:
    """A 5-shot task with the network's number of classes: 5 queries per class for the paper's linear head, else 2."""
    network = config.network
    queries = 5 if network.head == "linear" else 2
    images, labels = decoded_images(network.ways, 5 + queries)
    everything = to_float(torch.from_numpy(stacked(images, network.image)))
    targets = torch.from_numpy(labels)
    in_support = torch.arange(len(targets)) % (5 + queries) < 5
    return Episode(
        everything[in_support], targets[in_support], everything[~in_support], targets[~in_support], network.ways
    )
