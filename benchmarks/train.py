"""``lamanas bench train``: tasks per second of Algorithms 1 and 2; for preset ``paper`` also of the plain reference."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from benchmarks.measuring import gemm_gflops, in_turns, machine, peak_memory_mb
from benchmarks.plain_training import PlainTrainer
from benchmarks.train_processes import tasks_per_second
from benchmarks.train_tasks import task_of
from lamanas_core.adapt.batches import drawn
from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import PAPER, PRESETS, Config
from lamanas_core.meta.maml import maml
from lamanas_core.meta.reptile import reptile

PHI_RATE = 0.01


def measure(runs: int, paper: Config = PAPER, serving: Config = PRESETS["serving"]) -> dict[str, Any]:
    """For each preset and algorithm the result of ``in_turns`` for one task and the tasks per second.

    For ``paper`` also the ratio to the reference, and for ``serving`` also ``processes``.
    """
    return {
        "gemm_gflops": gemm_gflops(),
        **machine(),
        "serving": {
            "algorithm_1": _timed({"ours": _algorithm_1(serving)}, runs),
            "algorithm_2": _timed({"ours": _algorithm_2(serving)}, runs),
            "processes": _by_processes(serving, runs),
        },
        "paper": {
            "algorithm_2": _timed({"ours": _algorithm_2(paper), "reference": _reference(paper, 2)}, runs),
            "algorithm_1": _timed({"ours": _algorithm_1(paper), "reference": _reference(paper, 1)}, runs),
        },
        "peak_memory_mb": peak_memory_mb(),
    }


def _by_processes(config: Config, runs: int) -> dict[str, float]:
    """Tasks per second of Algorithm 1 with one process, and with two that share each meta-batch."""
    one, two = (tasks_per_second(config, processes, runs) for processes in (1, 2))
    return {"one": one, "two": two, "ratio": two / one}


def _timed(contestants: dict[str, Callable[[], Any]], runs: int) -> dict[str, Any]:
    for contestant in contestants.values():
        contestant()
    timed: dict[str, Any] = in_turns(contestants, runs)
    for fields in timed.values():
        fields["tasks_per_second"] = 1 / fields["seconds"]
    if "reference" in timed:
        timed["ratio"] = timed["reference"]["seconds"] / timed["ours"]["seconds"]
        timed["cpu_ratio"] = timed["reference"]["cpu_seconds"] / timed["ours"]["cpu_seconds"]
    return timed


def with_sgd(config: Config) -> Config:
    """The configuration for Algorithm 1, with SGD: no meta-gradient flows through Adam with β₁ = 0."""
    return replace(config, task_learner=replace(config.task_learner, optimizer="sgd"))


def _algorithm_1(config: Config) -> Callable[[], Any]:
    config = with_sgd(config)
    learner, parameters, task = TaskLearner.build(config), initial_parameters(config, 0), task_of(config)
    count = config.task_learner.steps
    return lambda: maml(learner, parameters, task, count, torch.Generator().manual_seed(0))


def _algorithm_2(config: Config) -> Callable[[], Any]:
    learner, parameters, task = TaskLearner.build(config), initial_parameters(config, 0), task_of(config)
    count = config.task_learner.steps
    return lambda: reptile(
        learner, parameters, task, count, torch.Generator().manual_seed(0), "inner_product", "each_step", PHI_RATE
    )


def _reference(config: Config, algorithm: int) -> Callable[[], Any]:
    parameters, task = initial_parameters(config, 0), task_of(config)
    size = config.task_learner.batch or len(task.support)
    generator = torch.Generator().manual_seed(0)
    batches = drawn(task.support_labels, config.task_learner.steps, size, generator)
    if algorithm == 1:
        return lambda: PlainTrainer(with_sgd(config), parameters).algorithm_1(task, batches)
    return lambda: PlainTrainer(config, parameters).algorithm_2(task, batches, PHI_RATE, "inner_product", "each_step")
