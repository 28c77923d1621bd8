"""Calibration of probabilities and novelty scores on the validation split."""

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from lamanas_core.adapt.adapted import AdaptedNetwork, adapt_to
from lamanas_core.config import Calibration
from lamanas_core.data.episodes import to_float, with_out_of_class
from lamanas_core.data.folders import ImageClasses
from lamanas_core.meta_model import MetaModel
from lamanas_core.recipe import CalibrationEpisodes


def calibrated(model: MetaModel, classes: ImageClasses, seed: int, recipe: CalibrationEpisodes) -> MetaModel:
    """``model`` with the temperature and the novelty scale fitted to ``classes`` (the validation split).

    Returned unchanged if its head measures no distances (a linear head) or if there are fewer than three classes.
    """
    ways = min(recipe.ways, len(classes) - 1)
    if not model.learner.head.measures_novelty or ways < 2:
        return model
    plain = replace(model.config, calibration=Calibration())
    uncalibrated = MetaModel(model.parameters, model.card | {"config": plain.to_json()})
    fitted = _fit(uncalibrated, classes, replace(recipe, ways=ways), seed)
    return MetaModel(model.parameters, model.card | {"config": replace(plain, calibration=fitted).to_json()})


def _fit(model: MetaModel, classes: ImageClasses, recipe: CalibrationEpisodes, seed: int) -> Calibration:
    logits, labels, known, novel = [], [], [], []
    drawn = with_out_of_class(classes, recipe.ways, recipe.shots, recipe.queries, recipe.episodes, seed)
    for number, (episode, foreign) in enumerate(drawn):
        network = adapt_to(model, episode, steps=None, seed=number, device="cpu").network
        with torch.no_grad():
            logits.append(network.logits(to_float(episode.queries)))
            known.append(_ratios(network, to_float(episode.queries)))
            novel.append(_ratios(network, to_float(foreign)))
        labels.append(episode.query_labels)
    temperature = _fitted_temperature(torch.cat(logits), torch.cat(labels))
    centre, slope = _fitted_novelty(torch.cat(known), torch.cat(novel))
    return Calibration(temperature, centre, slope)


def _ratios(network: AdaptedNetwork, images: Tensor) -> Tensor:
    ratios = network.log_distance_ratio(images)
    if ratios is None:
        raise ValueError("this head cannot tell how far an image is from all classes")
    return ratios


def _fitted_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature in 1/20..20, to within 1 %, that minimises the cross-entropy of logits (n, ways)."""
    candidates = torch.linspace(-math.log(20), math.log(20), 602).exp()
    entropies = torch.stack([F.cross_entropy(logits / temperature, labels) for temperature in candidates])
    return round(float(candidates[entropies.argmin()]), 4)


def _fitted_novelty(known: Tensor, novel: Tensor) -> tuple[float, float]:
    """Centre and slope of the logistic regression of novel (1) against known (0) on log distance ratios, each (n,).

    Fitted by 50 Newton iterations.
    """
    ratios = torch.cat([known, novel]).double()
    x = torch.stack([torch.ones_like(ratios), ratios], dim=1)
    y = torch.cat([torch.zeros_like(known), torch.ones_like(novel)]).double()
    # A weak ridge penalty keeps the solution finite if the two samples are separable.
    ridge = 1e-4 * torch.eye(2, dtype=torch.float64)
    line = torch.zeros(2, dtype=torch.float64)
    for _ in range(50):
        share = torch.sigmoid(x @ line)
        gradient = x.T @ (share - y) / len(y) + ridge @ line
        curvature = (x * (share * (1 - share))[:, None]).T @ x / len(y) + ridge
        line = line - torch.linalg.solve(curvature, gradient)
    intercept, slope = line.tolist()
    return round(-intercept / slope, 4), round(slope, 4)
