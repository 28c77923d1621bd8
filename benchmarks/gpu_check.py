"""``make gpu-check``: whether a GPU adapts as a CPU does and reproduces its results, and how fast it is.

No machine of the continuous tests has a GPU, so this is run by hand on one. ``--device cpu`` runs the same checks, on
smaller tasks, without one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.adapt import decoded_images, stacked
from benchmarks.train import PHI_RATE, with_sgd
from benchmarks.train_tasks import task_of
from lamanas_core.adapt.adapted import Adapted, adapt
from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.adapt.together import TOLERANCE as TOGETHER
from lamanas_core.adapt.together import SupportSet, adapt_together
from lamanas_core.config import PRESETS, Config, TrainingConfig
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.devices import choose_device, half_precision
from lamanas_core.meta.maml import maml
from lamanas_core.meta.reptile import reptile
from lamanas_core.meta_model import MetaModel, shipped
from lamanas_core.recipe import Recipe
from lamanas_core.train.loop import TrainingStopped, train

# The largest difference of a logit after one step, as a fraction of the largest logit.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Size:
    """``ways`` and ``shots`` of the adapted tasks, with one query per class; ``runs``: timed runs of each work.

    ``batches``: how many episodes are adapted at a time. ``presets``: what is timed in training, with the algorithm.
    """

    ways: int = 20
    shots: int = 5
    runs: int = 5
    batches: tuple[int, ...] = (1, 8, 32)
    presets: tuple[tuple[str, int], ...] = (("serving", 1), ("serving", 2), ("paper", 1), ("paper", 2))


SMALL = Size(ways=3, shots=2, runs=1, batches=(1, 2), presets=(("tiny", 1), ("tiny", 2)))


class CheckFailed(Exception):  # noqa: N818 - a result, not a fault of the program
    """A check found something else than expected; the message says what."""


def main(arguments: list[str] | None = None) -> int:
    """Prints a line per check and measurement; returns 1 if there is no GPU or a check fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_check", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    wanted = parser.parse_args(arguments).device
    try:
        device = choose_device(wanted)
    except ValueError as error:
        print(f"no GPU to check: {error}", file=sys.stderr)
        return 1
    size = SMALL if device == "cpu" else Size()
    print(f"torch {torch.__version__} on {device}" + (f", {torch.cuda.get_device_name()}" if device != "cpu" else ""))
    checks: dict[str, Callable[[], str]] = {
        "adaptation against the CPU": lambda: against_the_cpu(device, size),
        "adaptation twice": lambda: twice(device, size),
        "adaptations together against each alone": lambda: together_against_alone(device, size),
        "resumed training, Algorithm 1": lambda: resumed(device, "maml"),
        "resumed training, Algorithm 2": lambda: resumed(device, "reptile"),
        "speed of an adaptation": lambda: adaptation_speed(device, size),
    }
    for batch in size.batches:
        checks[f"adaptations per second, {batch} at a time"] = partial(adaptations_per_second, device, batch, size)
    for preset, algorithm in size.presets:
        speed = partial(training_speed, device, preset, algorithm, size)
        checks[f"speed of training, {preset}, Algorithm {algorithm}"] = speed
    passed = [_checked(name, check) for name, check in checks.items()]
    return 0 if all(passed) else 1


def _checked(name: str, check: Callable[[], str]) -> bool:
    """Prints what the check found; False if it failed."""
    try:
        found = check()
    except Exception as error:  # the other checks are still worth running
        print(f"FAILED  {name}: {type(error).__name__}: {error}", flush=True)
        return False
    print(f"ok      {name}: {found}", flush=True)
    return True


def against_the_cpu(device: str, size: Size) -> str:
    """One inner step on ``device`` and on the CPU: logits within ``TOLERANCE``, and equal predictions."""
    expected, found = (_logits(_adapted(on, size, 1), size) for on in ("cpu", device))
    difference = float((found - expected).abs().max() / expected.abs().max())
    same = int((found.argmax(1) == expected.argmax(1)).sum())
    result = f"logits differ by {difference:.1e} (at most {TOLERANCE:.0e}), {same} of {len(found)} predictions equal"
    if not difference <= TOLERANCE or same < len(found):
        raise CheckFailed(result)
    return result


def twice(device: str, size: Size) -> str:
    """K steps on ``device``, twice: equal losses, and artifacts with equal bytes."""
    first, second = (_adapted(device, size, None) for _ in range(2))
    if first.losses != second.losses:
        raise CheckFailed(f"losses {first.losses} and {second.losses}")
    if first.artifact != second.artifact:
        raise CheckFailed("equal losses, but the artifacts differ")
    return f"equal bits after {len(first.losses)} steps"


def resumed(device: str, meta: str) -> str:
    """A short training on ``device``, uninterrupted, and interrupted in each stage and resumed: equal bits."""
    options = {"preset": "tiny", "warm_up_epochs": 1, "meta_epochs": 2, "meta_batch": 2, "ways": 3, "shots": 2}
    config = TrainingConfig.from_request(options | {"meta": meta})
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        write_folders(data, classes=14, images=6, seed=0)
        whole, parts = (Path(folder) / name for name in ("whole", "parts"))
        expected = _trained(config, data, whole, device, None)
        for stop in (1, 3):  # within the warm-up, and after it
            try:
                _trained(config, data, parts, device, stop)
            except TrainingStopped:
                continue
            raise CheckFailed("the training ended before it was interrupted")
        found = _trained(config, data, parts, device, None)
    named = found.parameters.named()
    different = [name for name, value in expected.parameters.named().items() if not torch.equal(value, named[name])]
    if different:
        raise CheckFailed(f"{len(different)} of {len(named)} tensors differ, for example {different[0]}")
    return f"{len(named)} tensors with equal bits"


def adaptation_speed(device: str, size: Size) -> str:
    """The median time of a whole adaptation of the shipped model."""
    seconds = _seconds(lambda: _adapted(device, size, None), device, size.runs)
    return f"{1000 * seconds:.0f} ms, {size.ways} classes of {size.shots} images"


def together_against_alone(device: str, size: Size) -> str:
    """K steps on several episodes in one batch, and on each alone: logits within their tolerance."""
    count = min(size.batches[-1], 8)
    found = [_logits(one, size) for one in _adapted_together(device, size, count)]
    alone = [_logits(_adapted(device, size, None, seed), size) for seed in range(count)]
    difference = max(float((got - own).abs().max() / own.abs().max()) for got, own in zip(found, alone, strict=True))
    result = f"logits of {count} episodes differ by {difference:.1e} (at most {TOGETHER:.0e})"
    if not difference <= TOGETHER:
        raise CheckFailed(result)
    return result


def adaptations_per_second(device: str, batch: int, size: Size) -> str:
    """Of whole adaptations of the shipped model, ``batch`` at a time; and on a GPU the most memory that they took."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    one_by_one = partial(_adapted, device, size, None)
    work = one_by_one if batch == 1 else partial(_adapted_together, device, size, batch)
    seconds = _seconds(work, device, size.runs)
    memory = "" if device == "cpu" else f", {torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
    return f"{batch / seconds:.2f}{memory}"


def training_speed(device: str, preset: str, algorithm: int, size: Size) -> str:
    """Tasks per second of one algorithm, in the precision in which ``device`` trains."""
    config = with_sgd(PRESETS[preset]) if algorithm == 1 else PRESETS[preset]
    config = replace(config, network=replace(config.network, ways=size.ways))
    seconds = _seconds(_training(config, algorithm, device), device, size.runs)
    return f"{1 / seconds:.2f} tasks per second"


def _training(config: Config, algorithm: int, device: str) -> Callable[[], Any]:
    learner = TaskLearner.build(config, device, half_precision=half_precision(device))
    parameters = initial_parameters(config, 0).map(lambda tensor: tensor.to(device))
    task, count = task_of(config), config.task_learner.steps
    images = {name: getattr(task, name).to(device) for name in ("support", "support_labels", "queries", "query_labels")}
    task = replace(task, **images)
    if algorithm == 1:
        return lambda: maml(learner, parameters, task, count, torch.Generator().manual_seed(0))
    return lambda: reptile(
        learner, parameters, task, count, torch.Generator().manual_seed(0), "inner_product", "each_step", PHI_RATE
    )


def _task(size: Size, seed: int = 0) -> tuple[np.ndarray, np.ndarray, torch.Tensor]:
    """Support images uint8 (n, c, h, w), their labels int64 (n,), and the queries, float (ways, c, h, w) in 0..1."""
    images, labels = decoded_images(size.ways, size.shots + 1, seed)
    prepared = stacked(images, _model().config.network.image)
    asked = np.arange(len(labels)) % (size.shots + 1) == 0
    return prepared[~asked], labels[~asked], torch.from_numpy(prepared[asked]).float() / 255


@cache
def _model() -> MetaModel:
    return MetaModel.from_bytes(*shipped())


def _adapted(device: str, size: Size, steps: int | None, seed: int = 0) -> Adapted:
    one = _support_set(size, seed)
    return adapt(
        _model(),
        one.support,
        one.labels,
        one.classes,
        steps=steps,
        seed=seed,
        device=device,
        on_step=lambda step, count, loss: None,
    )


def _adapted_together(device: str, size: Size, count: int) -> list[Adapted]:
    """The results of ``_adapted`` for as many seeds, in one batch."""
    episodes = [_support_set(size, seed) for seed in range(count)]
    return list(adapt_together(_model(), episodes, steps=None, device=device, on_step=lambda *_: None))


def _logits(adapted: Adapted, size: Size) -> torch.Tensor:
    return adapted.network.logits(_task(size)[2].to(adapted.network.support.features.device)).cpu()


@cache
def _support_set(size: Size, seed: int) -> SupportSet:
    support, labels, _ = _task(size, seed)
    return SupportSet(support, labels, [str(label) for label in range(size.ways)], seed)


def _trained(config: TrainingConfig, data: Path, run_dir: Path, device: str, stop: int | None) -> MetaModel:
    """Trains in ``run_dir``, from its checkpoint if there is one; ``stop``: the number of tasks to interrupt after."""
    recipe = Recipe()
    schedule = replace(
        recipe.schedule, warm_up_steps_per_epoch=2, epochs_per_checkpoint=1, validation_episodes=1, validation_ways=2
    )
    left: Iterator[bool] = iter([False] * stop) if stop is not None else iter(())
    return train(
        config,
        data,
        run_dir,
        device=device,
        on_progress=lambda progress: None,
        should_stop=lambda: next(left, stop is not None),
        recipe=replace(recipe, schedule=schedule, calibration=replace(recipe.calibration, episodes=1)),
    )


def _seconds(work: Callable[[], Any], device: str, runs: int) -> float:
    """The median duration of ``runs`` runs after one that is not timed."""
    seconds = []
    for _ in range(1 + runs):
        started = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


if __name__ == "__main__":
    sys.exit(main())
