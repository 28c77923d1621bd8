"""Images as the inputs of a network with a backbone, computed once for many tasks.

In place of each image there are several rows of float16 numbers, (k, m). The first one is that of the image itself; the
others are those of its crops (``with_inputs``), or of the image in other styles (``in_styles``).
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lamanas_core.data.augment import restyled
from lamanas_core.data.crops import cropped, crops_of_each
from lamanas_core.data.episodes import to_float
from lamanas_core.data.folders import ImageClasses
from lamanas_core.image_spec import ImageSpec
from lamanas_core.recipe import Styles
from lamanas_core.search.network import Network

# As many images are computed at a time, for little memory beside the result.
AT_ONCE = 32


def with_inputs(
    classes: ImageClasses, network: Network, fewest: int = 1, check: Callable[[], None] = lambda: None
) -> ImageClasses:
    """``classes`` with the inputs of each image and of its crops in place of it if the network has a backbone: float16
    (n, 1 + crops, m), with as many crops as support sets of at least ``fewest`` images need. ``check`` is called again
    and again.
    """
    if network.config.backbone is None or classes.images.is_floating_point():
        return classes
    crops = crops_of_each(fewest, network.config.crops)

    def variants(images: Tensor) -> list[Tensor]:
        return [images, *(cropped(images, crops).unbind(1) if crops > 0 else ())]

    return _with_rows(classes, network, variants, check)


def in_styles(
    classes: ImageClasses, network: Network, recipe: Styles, count: int, seed: int, check: Callable[[], None]
) -> ImageClasses:
    """``classes`` with the inputs of each image in place of it if the network has a backbone: as it is, and restyled in
    ``count`` random styles, each the same for all images; float16 (n, 1 + ``count``, m). ``check`` is called again and
    again.
    """
    if network.config.backbone is None:
        return classes
    spec = network.config.image
    seeds = _visible(spec, recipe, count, seed)

    def variants(images: Tensor) -> list[Tensor]:
        return [images, *(_in_style(images, spec, recipe, seed) for seed in seeds)]

    return _with_rows(classes, network, variants, check)


def _with_rows(
    classes: ImageClasses,
    network: Network,
    variants: Callable[[Tensor], Sequence[Tensor]],
    check: Callable[[], None],
) -> ImageClasses:
    """``classes`` with the network's inputs of the k ``variants`` of each image in place of it: float16 (n, k, m)."""
    parts = list[Tensor]()
    for images in torch.split(classes.images, AT_ONCE):
        check()
        parts.append(torch.stack([network.inputs(one).half() for one in variants(images)], dim=1))
    return replace(classes, images=torch.cat(parts))


def in_mixed_light(
    classes: ImageClasses, network: Network, recipe: Styles, count: int, seed: int, check: Callable[[], None]
) -> ImageClasses:
    """``classes`` with each image at random as it is or in one of the ``count`` styles that ``in_styles`` has for the
    seed 0, so that images of a class differ as under different light, if the network has a backbone. ``check`` is
    called again and again.
    """
    if network.config.backbone is None:
        return classes
    spec = network.config.image
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(1 + count, (len(classes.images),), generator=generator)
    images = classes.images.clone()
    for number, style in enumerate(_visible(spec, recipe, count, 0), start=1):
        for rows in torch.split((chosen == number).nonzero().flatten(), AT_ONCE):
            check()
            images[rows] = _in_style(images[rows], spec, recipe, style)
    return replace(classes, images=images)


def _visible(spec: ImageSpec, recipe: Styles, count: int, seed: int) -> list[int]:
    """The first ``count`` seeds from ``seed`` on whose styles change images."""
    return list(itertools.islice((one for one in itertools.count(seed) if _changes(spec, recipe, one)), count))


def _changes(spec: ImageSpec, recipe: Styles, seed: int) -> bool:
    """Whether the style that ``seed`` draws changes images at all; in many, no change happens to be chosen."""
    ramp = torch.linspace(0, 255, spec.channels * spec.size**2).view(1, *spec.shape).byte()
    return not torch.equal(_in_style(ramp, spec, recipe, seed), ramp)


def _in_style(images: Tensor, spec: ImageSpec, recipe: Styles, seed: int) -> Tensor:
    """uint8 images in the style that ``seed`` draws."""
    generator = torch.Generator().manual_seed(seed)
    return (restyled(to_float(images), spec, recipe, generator) * 255).round().byte()
