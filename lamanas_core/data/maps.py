"""Images as the inputs of a network with a backbone, computed once for many tasks."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from lamanas_core.data.augment import restyled
from lamanas_core.data.episodes import to_float
from lamanas_core.data.folders import ImageClasses
from lamanas_core.image_spec import ImageSpec
from lamanas_core.recipe import Styles
from lamanas_core.search.network import Network

# As many images are computed at a time, for little memory beside the result.
AT_ONCE = 32


def with_inputs(classes: ImageClasses, network: Network) -> ImageClasses:
    """``classes`` with the network's inputs, float16 (n, m), in place of images, if the network has a backbone."""
    if network.config.backbone is None or classes.images.is_floating_point():
        return classes
    return replace(
        classes, images=torch.cat([network.inputs(part).half() for part in torch.split(classes.images, AT_ONCE)])
    )


def in_styles(
    classes: ImageClasses, network: Network, recipe: Styles, count: int, seed: int, check: Callable[[], None]
) -> ImageClasses:
    """``classes`` with the inputs of each image in place of it if the network has a backbone: as it is, and restyled in
    ``count`` random styles, each the same for all images; float16 (n, 1 + ``count``, m). ``check`` is called again and
    again.
    """
    if network.config.backbone is None:
        return classes
    spec, parts = network.config.image, list[Tensor]()
    visible = (seed for seed in itertools.count(seed) if _changes(spec, recipe, seed))
    seeds = list(itertools.islice(visible, count))
    for images in torch.split(classes.images, AT_ONCE):
        check()
        styles = [images, *(_in_style(images, spec, recipe, seed) for seed in seeds)]
        parts.append(torch.stack([network.inputs(one).half() for one in styles], dim=1))
    return replace(classes, images=torch.cat(parts))


def in_one_style(classes: ImageClasses, network: Network, seed: int | None = None) -> ImageClasses:
    """What ``in_styles`` returned, with one of its styles for each image, float16 (n, m): with ``seed`` a random one,
    so that images of a class differ as under different light; without, the image as it is.
    """
    if network.config.backbone is None:
        return classes
    count, styles = classes.images.shape[:2]
    chosen = torch.zeros(count, dtype=torch.int64)
    if seed is not None:
        chosen = torch.randint(styles, (count,), generator=torch.Generator().manual_seed(seed))
    return replace(classes, images=classes.images[torch.arange(count), chosen])


def _changes(spec: ImageSpec, recipe: Styles, seed: int) -> bool:
    """Whether the style that ``seed`` draws changes images at all; in many, no change happens to be chosen."""
    ramp = torch.linspace(0, 255, spec.channels * spec.size**2).view(1, *spec.shape).byte()
    return not torch.equal(_in_style(ramp, spec, recipe, seed), ramp)


def _in_style(images: Tensor, spec: ImageSpec, recipe: Styles, seed: int) -> Tensor:
    """uint8 images in the style that ``seed`` draws."""
    generator = torch.Generator().manual_seed(seed)
    return (restyled(to_float(images), spec, recipe, generator) * 255).round().byte()
