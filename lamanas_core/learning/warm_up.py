"""Step 1 of the training schedule: θ and α by a plain prototype loss, no adaptation inside."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.learning.architecture import CellWeights
from lamanas_core.learning.episodes import Episode
from lamanas_core.learning.normalisation import Statistics
from lamanas_core.learning.prototypes import logits, prototypes
from lamanas_core.learning.supernet import Supernet


def prototype_loss(
    network: Supernet, weights: CellWeights, scale: Tensor, episode: Episode, support: Tensor, query: Tensor
) -> tuple[Tensor, float]:
    """Cross-entropy of the query images (float, as ``support``) against the support set's prototypes, and accuracy.

    One pass for both: the normalisation takes its statistics from the support rows alone.
    """
    features = network(torch.cat([support, query]), weights, Statistics(len(support)))
    centres = prototypes(features[: len(support)], episode.support_labels, episode.ways)
    predicted = logits(features[len(support) :], centres, scale)
    accuracy = (predicted.argmax(1) == episode.query_labels).float().mean().item()
    return F.cross_entropy(predicted, episode.query_labels), accuracy
