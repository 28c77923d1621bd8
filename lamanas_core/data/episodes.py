"""Episodes (few-shot tasks) sampled from the classes of a split."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lamanas_core.data.folders import ImageClasses


@dataclass(frozen=True)
class Episode:
    """A few-shot task T_i: the support set (the paper's D_train) and the query set (D_val).

    Images: (n, c, h, w), uint8 as sampled or float in 0..1 as the network takes them. Labels: int64 (n,) in
    0..``ways``-1. ``classes``: the indices in ``ImageClasses`` of the labels' classes; empty if they are not recorded.
    """

    support: Tensor
    support_labels: Tensor
    queries: Tensor
    query_labels: Tensor
    ways: int
    classes: tuple[int, ...] = ()


def sample_episode(
    classes: ImageClasses,
    ways: int,
    shots: int,
    queries: int,
    generator: torch.Generator,
    *,
    rotations: bool = False,
    within_group: bool = False,
    fewer_ways: bool = False,
    uneven: bool = False,
) -> Episode:
    """A random episode of ``ways`` classes with ``shots`` support and up to ``queries`` query images per class.

    Images are uint8, and no image is used twice. A class with too few images gets fewer queries, but at least one, and
    if necessary fewer shots. ``uneven``: each class has a random number of shots from 1 to ``shots``. ``rotations``:
    each class rotated by 0, 90, 180 and 270 degrees counts as four classes. ``within_group``: all classes are from one
    of the alphabets that have enough. ``fewer_ways``: of any alphabet with at least two classes, with fewer ways if it
    has fewer classes. Raises ValueError if there are too few classes.
    """
    candidates = torch.arange(len(classes))
    turns = 4 if rotations else 1
    if within_group:
        sizes = Counter(classes.groups)
        least = 2 if fewer_ways else -(-ways // turns)
        names = sorted(name for name, size in sizes.items() if size >= least)
        if not names:
            raise ValueError(f"{ways} ways within one alphabet; the largest has {max(sizes.values())} classes")
        group = names[int(torch.randint(len(names), (), generator=generator))]
        candidates = torch.tensor([i for i, g in enumerate(classes.groups) if g == group])
        ways = min(ways, turns * len(candidates))
    if ways > turns * len(candidates):
        raise ValueError(f"{ways} ways from {len(candidates)} classes")
    picked = torch.randperm(turns * len(candidates), generator=generator)[:ways]
    support, query, support_labels, query_labels = [], [], [], []
    for label, index in enumerate(picked.tolist()):
        members = classes.members[int(candidates[index % len(candidates)])]
        order = members[torch.randperm(len(members), generator=generator)]
        wanted = int(torch.randint(1, shots + 1, (), generator=generator)) if uneven else shots
        take = min(wanted, len(order) - 1)
        images = classes.images[order[: take + queries]]
        if index >= len(candidates):
            images = torch.rot90(images, index // len(candidates), (2, 3))
        support.append(images[:take])
        query.append(images[take:])
        support_labels += [label] * take
        query_labels += [label] * (len(images) - take)
    return Episode(
        torch.cat(support),
        torch.tensor(support_labels),
        torch.cat(query),
        torch.tensor(query_labels),
        ways,
        tuple(candidates[picked % len(candidates)].tolist()),
    )


def to_float(images: Tensor) -> Tensor:
    """uint8 images -> float32 in 0..1, of the same shape."""
    return images.float() / 255


def with_out_of_class(
    classes: ImageClasses,
    ways: int,
    shots: int,
    queries: int,
    episodes: int,
    seed: int,
    *,
    within_group: bool = False,
) -> Iterator[tuple[Episode, Tensor]]:
    """``episodes`` episodes from ``seed``, each with as many out-of-class images, uint8 (n, c, h, w), as queries.

    ``within_group``: see ``sample_episode``; groups may have fewer classes, but need two.
    """
    generator = torch.Generator().manual_seed(seed)
    for _ in range(episodes):
        episode = sample_episode(
            classes, ways, shots, queries, generator, within_group=within_group, fewer_ways=within_group
        )
        yield episode, out_of_class(classes, episode, len(episode.queries), generator, within_group=within_group)


def out_of_class(
    classes: ImageClasses, episode: Episode, count: int, generator: torch.Generator, *, within_group: bool = False
) -> Tensor:
    """``count`` images, uint8 (count, c, h, w), of classes that are not in ``episode``, drawn with replacement.

    ``within_group``: of the groups of its classes if these have others, whose images are harder to tell from its own.
    """
    others = [i for i in range(len(classes)) if i not in episode.classes]
    groups = {classes.groups[i] for i in episode.classes}
    alike = [i for i in others if classes.groups[i] in groups] if within_group else []
    outside = torch.cat([classes.members[i] for i in alike or others])
    return classes.images[outside[torch.randint(len(outside), (count,), generator=generator)]]
