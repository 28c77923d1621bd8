"""Calibration of probabilities and novelty scores on the validation split."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.adapted import AdaptedNetwork, adapt_to
from lamanas_core.config import Calibration, Novelty
from lamanas_core.data.episodes import with_out_of_class
from lamanas_core.data.folders import ImageClasses
from lamanas_core.heads.base import FittedHead
from lamanas_core.heads.distances import DistanceHead
from lamanas_core.meta_model import MetaModel
from lamanas_core.recipe import CalibrationEpisodes

# Below this a standard deviation is due to rounding.
SMALLEST_DEVIATION = 1e-6
# Bounds on ``spread`` and ``relative`` of ``Novelty``, against chance in few episodes. ``spread`` is 1 for independent
# images: squared distances to the mean of m of them are 1 + 1 / m times as large.
MOST_SPREAD, MOST_RELATIVE = 2.0, 0.9


def calibrated(model: MetaModel, classes: ImageClasses, seed: int, recipe: CalibrationEpisodes) -> MetaModel:
    """``model`` with the temperature and the novelty scale fitted to ``classes`` (the validation split).

    Returned unchanged if its head measures no distances (a linear head) or if there are fewer than three classes.
    """
    ways = min(recipe.ways, len(classes) - 1)
    if not model.learner.head.measures_novelty or ways < 2:
        return model
    plain = replace(model.config, calibration=Calibration())
    uncalibrated = MetaModel(model.parameters, model.card | {"config": plain.to_json()})
    within_group = recipe.within_group and any(classes.groups.count(group) > 1 for group in classes.groups)
    fitted = _fit(uncalibrated, classes, replace(recipe, ways=ways, within_group=within_group), seed)
    return MetaModel(model.parameters, model.card | {"config": replace(plain, calibration=fitted).to_json()})


def _fit(model: MetaModel, classes: ImageClasses, recipe: CalibrationEpisodes, seed: int) -> Calibration:
    """The temperature is fitted to episodes of all numbers of shots, novelty to those of ``recipe.novelty_shots``."""
    temperatures, without_crops, known, novel = {}, {}, [], []
    for shots in sorted({recipe.shots, *recipe.novelty_shots}):
        answered, plain = [], []
        drawn = with_out_of_class(
            classes, recipe.ways, shots, recipe.queries, recipe.episodes, seed, within_group=recipe.within_group
        )
        for number, (episode, foreign) in enumerate(drawn):
            network = adapt_to(model, episode, steps=None, seed=number, device="cpu").network
            with torch.no_grad():
                features = network.embed(episode.queries)
                answered.append((network.head.logits(features), episode.query_labels))
                if model.config.network.crops > 0:
                    plain.append((_head_without_crops(network).logits(features), episode.query_labels))
                if shots in recipe.novelty_shots:
                    reference = _reference(network) if recipe.relative_novelty else 0.0
                    known.append(_distances(network, reference, episode.queries))
                    novel.append(_distances(network, reference, foreign))
        temperatures[shots] = _fitted_temperature(answered)
        if plain:
            without_crops[shots] = _fitted_temperature(plain)
    temperature, spread = fitted_spread(temperatures)
    novelty = fitted_novelty(torch.cat(known), torch.cat(novel), recipe.called_unknown)
    return Calibration(temperature, novelty, spread, fitted_spread(without_crops) if without_crops else None)


def _head_without_crops(network: AdaptedNetwork) -> FittedHead:
    """The head of ``network`` if it were fitted to the images of its support set alone."""
    parameters, support = network.parameters, replace(network.support, crops=None)
    return network.learner.fitted_head(parameters.theta, parameters.log_scale, support).stored()


def _distances(network: AdaptedNetwork, reference: float, images: Tensor) -> Tensor:
    """(n, 3): the logarithm of the squared distance / d of each image to the nearest prototype; log(1 + 1 / m) for the
    m images of that prototype; and ``reference``.
    """
    features, head = network.embed(images), network.head
    assert isinstance(head, DistanceHead)  # as every head that measures novelty
    usual = (1 + 1 / head.sizes[head.logits(features).argmax(1)].double()).log()
    return torch.stack([head.log_distance(features, 0.0), usual, torch.full_like(usual, reference)], dim=1)


def _reference(network: AdaptedNetwork) -> float:
    """``DistanceHead.reference`` of the episode, not divided by what is usual for the number of images."""
    assert isinstance(network.head, DistanceHead)
    return network.head.reference(network.support, 0.0)


def _fitted_temperature(answered: Sequence[tuple[Tensor, Tensor]]) -> float:
    """The temperature in 1/20..20, to within 1 %, that minimises the cross-entropy of all images.

    ``answered``: of each episode the logits (n, ways) and labels (n,); ``ways`` can differ.
    """
    candidates = torch.linspace(-math.log(20), math.log(20), 602).exp()
    entropies = torch.zeros(len(candidates))
    for logits, labels in answered:
        entropies += torch.stack([F.cross_entropy(logits / one, labels, reduction="sum") for one in candidates])
    return round(float(candidates[entropies.argmin()]), 4)


def fitted_spread(temperatures: Mapping[int, float]) -> tuple[float, float]:
    """``temperature`` and ``temperature_spread`` of ``Calibration`` from temperatures by number of shots, by least
    squares of the logarithms.
    """
    usual = torch.tensor([1 + 1 / shots for shots in temperatures], dtype=torch.float64).log()
    found = torch.tensor(list(temperatures.values()), dtype=torch.float64).log()
    varying = usual - usual.mean()
    spread = float(varying @ found / varying.square().sum()) if len(temperatures) > 1 else 0.0
    return round(math.exp(float(found.mean() - spread * usual.mean())), 4), round(spread, 4)


def fitted_novelty(known: Tensor, novel: Tensor, called_unknown: float) -> Novelty | None:
    """Novelty fitted to the ``_distances`` (n, 3) of images inside (``known``) and outside of the classes (``novel``).

    A logistic regression of ``novel`` (1) against ``known`` (0). The threshold is exceeded by the fraction
    ``called_unknown`` of the ``known`` images. None if novel images are not farther away than known ones, as for a
    network that has learned nothing: a score would then mislead.
    """
    samples = torch.cat([known, novel]).double()
    outside = torch.cat([torch.zeros(len(known)), torch.ones(len(novel))]).double()
    mean, deviation = samples.mean(0), samples.std(0)
    if not bool(samples.isfinite().all()) or not float(deviation[0]) > SMALLEST_DEVIATION:
        return None
    varies = deviation > SMALLEST_DEVIATION  # with a single number of shots, all m are equal
    intercept, *weights = _logistic((samples - mean)[:, varies] / deviation[varies], outside).tolist()
    slopes = torch.zeros(3, dtype=torch.float64)
    slopes[varies] = torch.tensor(weights, dtype=torch.float64) / deviation[varies]
    slope = float(slopes[0])
    if not slope > 0:
        return None
    relative = min(MOST_RELATIVE, max(0.0, -float(slopes[2]) / slope))
    # The reference is divided by what is usual for m images, too, so that ``relative`` of it cancels.
    usual = min(MOST_SPREAD, max(0.0, -float(slopes[1]) / slope / (1 - relative))) if bool(varies[1]) else 1.0
    subtracted = torch.tensor([-1.0, usual * (1 - relative), relative], dtype=torch.float64)
    centre = -float(mean @ subtracted) - intercept / slope
    far = torch.quantile(-(known.double() @ subtracted), 1 - called_unknown)
    threshold = float(torch.sigmoid(slope * (far - centre)))
    return Novelty(*(round(value, 4) for value in (centre, slope, usual, threshold, relative)))


def _logistic(x: Tensor, y: Tensor) -> Tensor:
    """Intercept and weights, float64 (1 + k,), of the logistic regression of y (n,) in 0..1 on x (n, k).

    Newton's method with step halving on a convex loss. A weak ridge penalty keeps the solution finite if the two
    samples are separable.
    """
    columns = torch.cat([torch.ones(len(x), 1, dtype=torch.float64), x], dim=1)
    penalty = 1e-3 * torch.eye(columns.shape[1], dtype=torch.float64)

    def loss(line: Tensor) -> float:
        entropy = F.binary_cross_entropy_with_logits(columns @ line, y)
        return float(entropy + line @ penalty @ line / 2)

    line = torch.zeros(columns.shape[1], dtype=torch.float64)
    for _ in range(50):
        share = torch.sigmoid(columns @ line)
        gradient = columns.T @ (share - y) / len(y) + penalty @ line
        curvature = (columns * (share * (1 - share))[:, None]).T @ columns / len(y) + penalty
        step = torch.linalg.solve(curvature, gradient)
        while loss(line - step) > loss(line) and float(step.abs().max()) > 1e-9:
            step = step / 2
        line = line - step
    return line
