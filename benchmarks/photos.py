"""Photos: LAMANAS, its adaptation with other losses, and logistic regression on the features of the same backbone.

All on the same episodes:

    python -m benchmarks.photos photos/gtsrb --ways 5 --shots 5 --episodes 250

Logistic regression is what hosted tools fit: scikit-learn's, on the square root of the backbone's 1,280 pooled features
at unit length, with the better of two strengths of regularisation. It is fitted to the images, and again to their crops
as well, which LAMANAS uses.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression

from lamanas_core.adapt.adapted import adapt_to
from lamanas_core.artifact import Classifier
from lamanas_core.backbones.runtime import Backbone
from lamanas_core.data.crops import crops_of_each
from lamanas_core.data.episodes import Episode
from lamanas_core.data.folders import ImageClasses, load_all
from lamanas_core.data.maps import with_inputs
from lamanas_core.measure.ablate import variants
from lamanas_core.measure.evaluate import EvaluationConfig, sampled
from lamanas_core.measure.metrics import expected_calibration_error, mean_and_interval
from lamanas_core.meta_model import MetaModel, read
from lamanas_core.search.taps import TapNetwork
from lamanas_core.train.provenance import provenance

# Values of scikit-learn's C.
STRENGTHS = (1.0, 10.0)
# The variants of the adaptation by their names here (see ``ablate.variants``): as it is, without a step, and with as
# many steps of cross-entropy, of the same sizes.
VARIANTS = {"adapted": "learned", "no_steps": "none", "cross_entropy": "cross_entropy_1"}


def compare(model: MetaModel, classes: ImageClasses, config: EvaluationConfig) -> dict[str, Any]:
    """Accuracies in per cent on the episodes of ``config``: of ``VARIANTS``, and of logistic regression; and the
    differences of the adapted model from the others, each as mean and half-width of its 95 % interval.

    ``over_logistic_regression``: from the better one of those that are fitted to the images alone;
    ``over_logistic_regression_with_crops``: of those that are fitted to their crops as well.
    """
    network = model.learner.network
    assert isinstance(network, TapNetwork)
    classes = with_inputs(classes, network, config.fewest)
    found = variants(model)
    plain, with_crops = ([_name(strength, crops=crops) for strength in STRENGTHS] for crops in (False, True))
    accuracies: dict[str, list[float]] = {name: [] for name in (*VARIANTS, *plain, *with_crops)}
    confidences, correct = [], []
    for number, episode in enumerate(sampled(classes, config)):
        truth = episode.query_labels.numpy()
        for name, of in VARIANTS.items():
            adapted = adapt_to(found[of].model, episode, steps=found[of].steps, seed=number, device="cpu")
            probabilities = Classifier.from_bytes(adapted.artifact).probabilities(episode.queries.numpy())
            right = probabilities.argmax(1) == truth
            accuracies[name].append(100 * float(right.mean()))
            if name == "adapted":
                confidences.append(probabilities.max(1))
                correct.append(right)
        for name, guessed in _by_regression(network.backbone, episode).items():
            accuracies[name].append(100 * float((guessed == truth).mean()))
    return {
        "accuracy": {name: _interval(values) for name, values in accuracies.items()},
        "over_no_steps": over(accuracies, ["no_steps"]),
        "over_cross_entropy": over(accuracies, ["cross_entropy"]),
        "over_logistic_regression": over(accuracies, plain),
        "over_logistic_regression_with_crops": over(accuracies, with_crops),
        "calibration_error": round(
            100 * expected_calibration_error(np.concatenate(confidences), np.concatenate(correct)), 2
        ),
    }


def over(accuracies: dict[str, list[float]], names: Sequence[str]) -> list[float]:
    """The adapted model's difference from the best of ``names``, in pairs."""
    best = max(names, key=lambda name: float(np.mean(accuracies[name])))
    return _interval(np.array(accuracies["adapted"]) - accuracies[best])


def _by_regression(backbone: Backbone, episode: Episode) -> dict[str, npt.NDArray[np.int64]]:
    queries, labels = features(backbone, episode.queries[:, 0]), episode.support_labels
    found = {}
    for crops in (False, True):
        of_each = 1 + crops_of_each(len(labels), episode.support.shape[1] - 1) if crops else 1
        support = features(backbone, episode.support[:, :of_each].flatten(0, 1))
        own = labels.repeat_interleave(of_each).numpy()
        for strength in STRENGTHS:  # the rows of an image together count as one
            regression = LogisticRegression(C=strength / of_each, max_iter=500).fit(support, own)
            found[_name(strength, crops=crops)] = regression.predict(queries)
    return found


def features(backbone: Backbone, packed: torch.Tensor) -> npt.NDArray[np.float32]:
    """The square root of the pooled features at unit length, (n, 1280), of maps (n, m)."""
    weight, bias = (torch.from_numpy(value) for value in backbone.head.values())
    *_, (channels, side, _) = backbone.shapes.values()
    last = packed[:, -channels * side * side :].float().view(-1, channels, side, side)
    pooled = torch.nn.functional.conv2d(last, weight, bias).clamp(0, 6).mean((2, 3)).sqrt()
    features: npt.NDArray[np.float32] = torch.nn.functional.normalize(pooled, dim=1).numpy()
    return features


def _name(strength: float, *, crops: bool) -> str:
    return f"logistic_regression_{strength:g}{'_with_crops' if crops else ''}"


def _interval(values: Sequence[float] | npt.NDArray[np.float64]) -> list[float]:
    return [round(number, 2) for number in mean_and_interval(list(values))]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photos", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="class folders of photos")
    parser.add_argument("--model", type=Path, required=True, help="folder of the photo model")
    parser.add_argument("--ways", type=int, default=5)
    parser.add_argument("--shots", type=int, default=5)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--episodes", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    model = read(args.model)
    config = EvaluationConfig(
        ways=args.ways, shots=args.shots, queries=args.queries, episodes=args.episodes, seed=args.seed
    )
    found = compare(model, load_all(args.data, model.config.network.image), config)
    conditions = {name: getattr(config, name) for name in ("ways", "shots", "queries", "episodes", "seed")}
    trained_on = {"model_version": model.version, "trained_on": model.card["data"]["name"]}
    where = {"data": args.data.name, **trained_on, "provenance": provenance()}
    print(json.dumps(found | conditions | where, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
