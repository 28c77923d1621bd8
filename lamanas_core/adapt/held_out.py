"""What a support set says about the classifier that it gives: its accuracy on new images, and its doubtful labels.

The classifier itself has learned from every support image, so that its accuracy on them says nothing: images of noise
with random labels would be classified correctly as well.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.heads.prototypes import class_sizes, prototypes

# A label is doubtful if another class is at least this many times as likely. Chosen on Omniglot's validation
# characters, 10-way 5-shot with one label in twenty wrong: it finds 99 % of them, and 93 % of those it names are wrong.
DOUBT = 10.0
# A larger factor says no more.
MOST = 1e6

# Trains on the given rows of the support set and returns the features, float (n, d), of all its images; normalisation,
# too, uses the statistics of the given rows only.
Embed = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Suspect:
    """A support image whose label may be wrong.

    ``row``: its row in the support set. ``label``: the one given. ``likelier``: the label of the class that the other
    images make ``times`` times as likely as the given one, at most ``MOST``.
    """

    row: int
    label: int
    likelier: int
    times: float


def held_out_accuracy(embed: Embed, labels: Tensor, ways: int, generator: torch.Generator) -> float | None:
    """An estimate in 0..1 of the accuracy on new images, from support images that the adaptation did not see.

    ``embed`` is called with a random half of each class; the images of the other half are then compared with class
    means computed without them. This classifier has one image less in each class than the real one. Its error for a
    class of n images is taken to be c + d / n, where d is found with single images of a class instead of its mean, and
    the estimate is corrected by that, also for classes of one image, which cannot be judged. ``labels``: int64 (n,).
    None if each class has only one image.
    """
    half = half_of_each(labels, ways, generator)
    judged = torch.ones_like(labels, dtype=torch.bool).index_fill(0, half, False)
    if not bool(judged.any()):
        return None
    features = embed(half)
    accuracy = _by_means_without_each(features, labels, ways, judged)
    by_one_image = _by_one_image(features, labels, ways, judged)
    sizes = class_sizes(labels, ways).double()
    per_mean = 1 / (sizes[labels[judged]] - 1)  # 1 / n for the class means that the images were compared with
    apart = 1 - float(per_mean.mean())
    d = min(1.0, max(0.0, (accuracy - by_one_image) / apart)) if apart > 0 else 0.0
    return min(1.0, max(0.0, accuracy + d * float(per_mean.mean() - (1 / sizes).mean())))


def suspects(logits: Tensor, labels: Tensor) -> list[Suspect]:
    """The images whose label is doubtful (see ``DOUBT``), the most doubtful first.

    ``logits``: float (n, ways), leave-one-out and at the head's scale, from before the adaptation, which would have
    learned the wrong labels as well. ``labels``: int64 (n,). The only image of a class is never a suspect.
    """
    given = logits.gather(1, labels[:, None]).squeeze(1)
    best, likelier = logits.scatter(1, labels[:, None], -torch.inf).max(1)
    counts = class_sizes(labels, logits.shape[1])[labels]
    times = (best - given).exp().clamp(max=MOST)
    doubtful = ((times >= DOUBT) & (counts > 1)).nonzero().flatten().tolist()
    found = [Suspect(row, int(labels[row]), int(likelier[row]), float(times[row])) for row in doubtful]
    return sorted(found, key=lambda suspect: (-suspect.times, suspect.row))


def half_of_each(labels: Tensor, ways: int, generator: torch.Generator) -> Tensor:
    """The rows, int64 in ascending order, of a random half of each class: the only image, one or two of three,
    otherwise n / 2 rounded down, which costs less than the larger half.
    """
    rows = []
    for label in range(ways):
        of_class = (labels.cpu() == label).nonzero().flatten()
        n = len(of_class)
        size = int(torch.randint(1, 3, (), generator=generator)) if n == 3 else max(1, n // 2)
        rows.append(of_class[torch.randperm(n, generator=generator)[:size]])
    return torch.cat(rows).sort().values.to(labels.device)


def _by_means_without_each(features: Tensor, labels: Tensor, ways: int, judged: Tensor) -> float:
    """The fraction of the ``judged`` images, bool (n,), whose nearest class mean is that of the others of their class.

    In each round all classes lose one judged image, if they have any: if only the image's own class lost one, images of
    noise would be classified worse than at random.
    """
    places, counts = _places(labels, ways, judged), class_sizes(labels[judged], ways)[labels]
    right = compared = 0
    for turn in range(int(counts.max())):
        kept = ~(judged & (places == turn % counts.clamp(min=1)))
        asked = judged & (places == turn)
        centres = prototypes(features[kept], labels[kept], ways)
        nearest = torch.cdist(features[asked], centres).argmin(1)
        right, compared = right + int((nearest == labels[asked]).sum()), compared + len(nearest)
    return right / compared


def _by_one_image(features: Tensor, labels: Tensor, ways: int, judged: Tensor) -> float:
    """The mean fraction, over the ``judged`` images, of the other images of their class that are nearer than the
    nearest mean of another class.
    """
    to_means = torch.cdist(features, prototypes(features, labels, ways))
    to_others = to_means.scatter(1, labels[:, None], torch.inf).amin(1)
    nearer = torch.cdist(features, features) < to_others[:, None]
    same = (labels[:, None] == labels).fill_diagonal_(False)
    fractions = (nearer & same).sum(1) / same.sum(1).clamp(min=1)
    return float(fractions[judged].mean())


def _places(labels: Tensor, ways: int, chosen: Tensor) -> Tensor:
    """The place, from 0, of each of the ``chosen`` images among those of its class, int64 (n,); otherwise undefined."""
    own = (labels[:, None] == torch.arange(ways, device=labels.device)) & chosen[:, None]
    return own.cumsum(0).gather(1, labels[:, None]).squeeze(1) - 1
