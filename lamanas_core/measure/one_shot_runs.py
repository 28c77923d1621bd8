"""The error of a meta-model on Lake's one-shot runs."""

from collections.abc import Callable, Sequence
from typing import Any

from lamanas_core.adapt.adapted import adapt_to
from lamanas_core.data.episodes import Episode
from lamanas_core.measure.evaluate import measured_on
from lamanas_core.measure.metrics import mean_and_interval
from lamanas_core.meta_model import MetaModel


def error_on_runs(
    model: MetaModel, runs: Sequence[Episode], *, steps: int | None, device: str, on_run: Callable[[int], None]
) -> dict[str, Any]:
    """Adapt to each of ``runs`` and classify its test images with the artifact, each on its own.

    ``errors``: the fraction (0..1) of each run's test images that are classified wrongly; ``error``: their mean, and
    ``ci95`` the half-width of its 95 % confidence interval. ``cross_entropy``: the mean over the runs. ``on_run`` is
    called with the number of runs done; ``steps``: inner steps, None for the meta-model's K.
    """
    errors, entropies = [], []
    for number, run in enumerate(runs):
        accuracy, entropy = measured_on(adapt_to(model, run, steps=steps, seed=number, device=device), run)
        errors.append(1 - accuracy)
        entropies.append(entropy)
        on_run(number + 1)
    mean, half = mean_and_interval(errors)
    return {"error": mean, "ci95": half, "errors": errors, "cross_entropy": sum(entropies) / len(entropies)}
