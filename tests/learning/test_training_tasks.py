"""Training tasks: those of drawings are bit for bit those of the shipped model, and those of photos remain photos."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lamanas_core.config import PRESETS, TrainingConfig
from lamanas_core.data.augment import random_affine
from lamanas_core.data.episodes import Episode
from lamanas_core.data.folders import ImageClasses
from lamanas_core.recipe import Affine, Recipe
from lamanas_core.train.tasks import TaskSource

PHOTOS = PRESETS["rgb84"].network.image
CLASSES, EACH = 8, 6
Draw = Callable[[TaskSource, int], Episode]


def classes_of(images: Tensor) -> ImageClasses:
    """8 classes of 6 images in two alphabets."""
    members = tuple(torch.arange(i * EACH, (i + 1) * EACH) for i in range(CLASSES))
    return ImageClasses(images, members, tuple(str(i) for i in range(CLASSES)), ("a",) * 4 + ("b",) * 4)


def noise(channels: int, side: int) -> Tensor:
    shape = (CLASSES * EACH, channels, side, side)
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def source(options: TrainingConfig, images: Tensor) -> TaskSource:
    """A source of tasks with these images."""
    return TaskSource(options, options.model_config(), Recipe(), classes_of(images), "cpu")


def print_of(task: Episode) -> float:
    """A number that depends on every pixel of the task."""
    pixels = torch.cat([task.support, task.queries]).double().flatten()
    return float(pixels @ torch.linspace(0, 1, len(pixels), dtype=torch.double))


@pytest.mark.parametrize(
    ("draw", "prints"),
    [
        (TaskSource.warm_up_task, [2849.468, 2147.619, 2776.538, 2785.033, 5634.749, 4332.608]),
        (TaskSource.adaptation_task, [2521.495, 2141.284, 5189.179, 1590.114, 4114.718, 11150.96]),
    ],
)
def test_drawings_give_the_tasks_that_the_shipped_model_was_trained_on(draw: Draw, prints: list[float]) -> None:
    # An interrupted run must resume with the same tasks; compared by a number that is rounded alike on any CPU.
    config = TrainingConfig(ways=CLASSES)
    drawn = [print_of(draw(source(config, noise(1, 28)), seed)) for seed in range(len(prints))]
    assert drawn == pytest.approx(prints, abs=2e-3)


def test_a_linear_head_is_meta_trained_on_tasks_of_all_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    paper = PRESETS["paper"]
    monkeypatch.setitem(PRESETS, "paper", replace(paper, network=replace(paper.network, ways=6)))
    for ways, expected in ((None, 6), (3, 3), (8, 8)):
        tasks = source(TrainingConfig(preset="paper", ways=ways, shots=2), noise(1, 28))
        for seed in range(5):
            task = tasks.adaptation_task(seed)
            assert task.ways == expected
            assert torch.bincount(task.support_labels).tolist() == [2] * expected
            assert torch.bincount(task.query_labels).tolist() == [2] * expected


def test_warm_up_tasks_have_as_many_classes_as_fit_without_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def sampling(self: TaskSource, shape: tuple[int, int, int], *_: object, **__: object) -> None:
        asked.append(shape[0])

    monkeypatch.setattr(TaskSource, "_sampled", sampling)
    for preset in ("serving", "paper_small"):
        for ways, expected in ((None, 80), (7, 7)):
            asked.clear()
            tasks = source(TrainingConfig.from_request({"preset": preset, "shots": 1, "ways": ways}), noise(1, 28))
            for seed in range(8):
                tasks.warm_up_task(seed)
            assert max(asked) == expected, preset


def test_a_transformed_photo_of_one_colour_keeps_it_in_its_corners() -> None:
    colour = torch.tensor([0.8, 0.5, 0.2])[:, None, None].expand(20, 3, 84, 84)
    bent = random_affine(colour, PHOTOS, Affine(), torch.Generator().manual_seed(0))
    assert torch.allclose(bent, colour, atol=1e-5)


@pytest.mark.parametrize("draw", [TaskSource.warm_up_task, TaskSource.adaptation_task])
def test_tasks_of_photos_have_no_artificial_edges_or_strokes(draw: Draw) -> None:
    plain = noise(3, 1).expand(-1, -1, 84, 84)
    for seed in range(20):
        task = draw(source(TrainingConfig(preset="rgb84", rotations=False), plain), seed)
        images = torch.cat([task.support, task.queries])
        assert torch.allclose(images.amin((2, 3)), images.amax((2, 3)), atol=1e-5)


def test_most_tasks_of_photos_have_a_different_light() -> None:
    plain = torch.full((CLASSES * EACH, 3, 84, 84), 128, dtype=torch.uint8)
    config = TrainingConfig(preset="rgb84", rotations=False)
    means = [source(config, plain).adaptation_task(seed).support.mean() for seed in range(40)]
    changed = sum(abs(float(mean) - 128 / 255) > 0.01 for mean in means)
    assert 12 <= changed <= 30  # 7 of 10 are restyled, and 3 of 4 of those change the light
