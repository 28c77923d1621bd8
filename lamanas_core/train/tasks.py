"""The tasks that a run trains on, each drawn from a seed of its own."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from lamanas_core.config import NetworkConfig
from lamanas_core.data.augment import random_affine, restyled
from lamanas_core.data.episodes import sample_episode, to_float
from lamanas_core.data.folders import ImageClasses
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta.gradient import Task

if TYPE_CHECKING:
    from lamanas_core.train.loop import TrainingConfig

# Images of a warm-up task, and the positions behind the stem (14 x 14) up to which a task has that many.
IMAGES = 160
POSITIONS = 196
RESTYLED = 0.7  # of the tasks that the adaptation is trained on
UNSTEADY = 0.5  # of those: images of one class differ more than the data set's
PAIRS = ((1, 1), (1, 2), (2, 2), (5, 3))


def task_images(network: NetworkConfig) -> int:
    """About how many images a task has at most: fewer where each is larger, so that memory stays about the same."""
    side = -(-network.image.size // network.stem_stride)
    return min(IMAGES, max(IMAGES * POSITIONS // side**2, 2 * sum(PAIRS[-1])))


def warm_up_task(config: "TrainingConfig", classes: ImageClasses, seed: int, device: str) -> Task:
    """As many classes as fit, images on both sides of the loss; 3 of 10 tasks lie within one alphabet."""
    generator = torch.Generator().manual_seed(seed)
    shots, queries = PAIRS[int(torch.randint(len(PAIRS), (), generator=generator))]
    shots = min(shots, config.shots)
    ways = min(task_images(config.model_config().network) // (shots + queries), config.ways)
    return _task(config, classes, (ways, shots, queries), generator, device, within_group=_chance(0.3, generator))


def meta_task(config: "TrainingConfig", classes: ImageClasses, seed: int, device: str) -> Task:
    """5 to 20 classes, 1 to ``shots`` images each; half of the tasks lie within one alphabet, the harder case.

    In half of them every class has its own number of images, 1 to the task's, as clients bring them.

    7 of 10 are drawn (photos: taken) in another style than the data set's: in its own the network needs hardly any
    adaptation, and what adapts to nothing learns to stand still. Half of those have images that are bent twice, so that
    L_φ meets classes of which few images say little, and learns not to step far on those.
    A linear head has its number of classes: it gets tasks of just so many, of ``shots`` images, from anywhere.
    """
    generator = torch.Generator().manual_seed(seed)
    network = config.model_config().network
    if network.head == "linear":
        shape = (network.ways, config.shots, config.shots)
        return _task(config, classes, shape, generator, device, within_group=False)
    ways = min(int(torch.randint(5, 21, (), generator=generator)), config.ways)
    shots = int(torch.randint(1, config.shots + 1, (), generator=generator))
    # The graph of all K steps stays in memory, and costs several times what the steps themselves do.
    ways = max(2, min(ways, task_images(network) * 3 // 10 // shots))
    within = _chance(0.5, generator)
    uneven = _chance(0.5, generator)
    task = _task(config, classes, (ways, shots, 2), generator, device, within_group=within, uneven=uneven)
    return _restyled(task, network.image, generator) if _chance(RESTYLED, generator) else task


def _restyled(task: Task, spec: ImageSpec, generator: torch.Generator) -> Task:
    n = len(task.support)
    images = torch.cat([task.support, task.query])
    if _chance(UNSTEADY, generator):
        images = random_affine(images, spec, generator)
    images = restyled(images.cpu(), spec, generator).to(task.support.device)
    return replace(task, support=images[:n], query=images[n:])


def _chance(probability: float, generator: torch.Generator) -> bool:
    return bool(torch.rand((), generator=generator) < probability)


def _task(
    config: "TrainingConfig",
    classes: ImageClasses,
    shape: tuple[int, int, int],
    generator: torch.Generator,
    device: str,
    *,
    within_group: bool,
    uneven: bool = False,
) -> Task:
    """``shape``: ways, shots, queries. ``within_group``: of one alphabet, where there are alphabets, turned as a whole
    where rotations make classes."""
    ways, shots, queries = shape
    within = within_group and any(classes.groups.count(group) > 1 for group in classes.groups)
    available = len(classes) * (4 if config.rotations else 1)
    episode = sample_episode(
        classes,
        min(ways, available),
        shots,
        queries,
        generator,
        rotations=config.rotations and not within,
        within_group=within,
        uneven=uneven,
    )
    turns = int(torch.randint(4, (), generator=generator)) if within and config.rotations else 0
    spec = config.model_config().network.image
    support, query = (
        random_affine(to_float(torch.rot90(part, turns, (2, 3))), spec, generator)
        for part in (episode.support, episode.query)
    )
    return Task(
        support.to(device),
        episode.support_labels.to(device),
        query.to(device),
        episode.query_labels.to(device),
        episode.ways,
    )
