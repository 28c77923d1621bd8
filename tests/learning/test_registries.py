"""A new operation, head or stem needs only its class and a line in a registry."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.adapt.adapted import adapt
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.config import PRESETS, Config, NetworkConfig, TaskLearnerConfig
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.heads.base import FittedHead, Head, Support
from lamanas_core.heads.registry import HEADS, make_head
from lamanas_core.losses.invariant import LearnedLoss
from lamanas_core.meta_model import MetaModel
from lamanas_core.onnx_writer import OnnxState, OnnxWriter, array
from lamanas_core.search.normalisation import Batch, Folded, Normalisation, PartMoments
from lamanas_core.search.operations import OPERATIONS, CellState, Operation, PointwiseConvolution, operation_type
from lamanas_core.search.stems import PIXEL_RANGE, STEMS, Stem, make_stem
from lamanas_core.search.supernet import CellNetwork
from tests.learning.brief_training import brief, trained
from tests.learning.helpers import MINIATURE


class Doubled(Operation):
    """Twice the normalised pointwise convolution of the input, without a ReLU."""

    may_be_dropped = False

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__(channels, stride)
        self.conv = PointwiseConvolution(channels, channels, stride)
        self.norm = Normalisation(channels)

    def forward(
        self, state: CellState, weight: Tensor, moments: PartMoments | None, batch: Batch
    ) -> tuple[Tensor, PartMoments]:
        y, own = self.norm(self.conv(state.value), None if moments is None else moments[0], batch, weight)
        return 2 * y, (own,)

    def onnx(self, writer: OnnxWriter, state: OnnxState, moments: PartMoments, gain: float) -> str:
        folded, stride = self.norm.folded(moments[0]), (self.stride, self.stride)
        return writer.convolution(state.value, array(self.conv.weight), folded, stride=stride, gain=2 * gain)


class NearestDirection(Head):
    """Cosine similarities to class means, after a square linear layer in θ."""

    leaves_one_out = False
    measures_novelty = False

    def layer(self, features: int) -> nn.Module | None:
        return nn.Linear(features, features)

    def classes(self) -> int | None:
        return 4

    def support_logits(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor | float) -> Tensor:
        return F.normalize(self._turned(theta, support.features)) @ self._means(theta, support).T

    def fit(self, theta: Mapping[str, Tensor], support: Support, scale: Tensor) -> FittedHead:
        means = self._means(theta, support)
        return FittedHead(means @ theta["head.weight"], means @ theta["head.bias"])

    def loss_network(self, task: TaskLearnerConfig, generator: torch.Generator | None) -> LearnedLoss:
        return LearnedLoss("fnn", task.residual, task.hidden, generator)

    def _turned(self, theta: Mapping[str, Tensor], features: Tensor) -> Tensor:
        return F.linear(features, theta["head.weight"], theta["head.bias"])

    def _means(self, theta: Mapping[str, Tensor], support: Support) -> Tensor:
        own = F.one_hot(support.labels, support.ways).to(support.features)
        return F.normalize(own.T @ self._turned(theta, support.features))


class Fixed(Stem):
    """A frozen convolution whose weights are not stored but generated from a seed."""

    learned = False

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        shape = (config.channels, config.image.channels, 3, 3)
        self.weight = nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(7)))
        self.size = config.image.size

    @classmethod
    def make(cls, config: NetworkConfig) -> Stem:
        return cls(config)

    def forward(self, images: Tensor, moments: PartMoments | None, batch: Batch) -> tuple[Tensor, PartMoments]:
        return F.conv2d(images, self.weight, None, 1, 1), ()

    def onnx(self, writer: OnnxWriter, images: str, moments: PartMoments, folded: Folded) -> str:
        return writer.convolution(images, array(self.weight), folded, input_range=PIXEL_RANGE)

    def side(self) -> int:
        return self.size


TOYS = {
    "operation": replace(MINIATURE.network, operations=("skip", "doubled", "conv_3x3")),
    "head": replace(MINIATURE.network, head="nearest_direction"),
    "stem": replace(MINIATURE.network, stem="fixed"),
}


@pytest.fixture(params=TOYS)
def config(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A miniature config with one toy part."""
    monkeypatch.setitem(OPERATIONS, "doubled", Doubled)
    monkeypatch.setitem(HEADS, "nearest_direction", NearestDirection)
    monkeypatch.setitem(STEMS, "fixed", Fixed)
    task = replace(MINIATURE.task_learner, loss="fnn")
    found = replace(MINIATURE, network=TOYS[request.param], task_learner=task)
    monkeypatch.setitem(PRESETS, "tiny", found)
    return found


def test_a_toy_part_is_trained_adapted_pruned_counted_and_exported(config: Config, tmp_path: Path) -> None:
    write_folders(tmp_path / "data", classes=20, images=4, seed=0)
    before = initial_parameters(config, 0)
    model = trained(brief(), tmp_path / "data", tmp_path / "run")
    learned = {name for name, value in model.parameters.theta.items() if not torch.equal(value, before.theta[name])}
    assert any(name.startswith("cells") for name in learned)
    own = {name for name in before.theta if name.startswith("head.") or (".edges." in name and ".1." in name)}
    if config.network.head == "nearest_direction" or "doubled" in config.network.operations:
        assert learned & own
    assert ("stem.weight" in before.theta) == (config.network.stem != "fixed")

    # One operation per edge, to check that the dropped ones are neither counted nor exported.
    for kind in ("normal", "reduction"):
        alpha = model.parameters.alpha[f"{kind}.operations"]
        alpha.zero_()[:, 1] = 9.0
    sharp = replace(config, network=replace(config.network, temperature=0.05))
    model = MetaModel(model.parameters, {"config": sharp.to_json()})
    rng = np.random.default_rng(0)
    support, labels = rng.integers(0, 256, (8, 1, 8, 8), dtype=np.uint8), np.arange(8) % 4
    adapted = adapt(model, support, labels, list("abcd"), steps=2, seed=0, device="cpu", on_step=lambda *_: None)
    kept = {o.name for node in adapted.genotype.normal for edge in node for o in edge.operations}
    assert kept == {config.network.operations[1]}
    theta = model.parameters.theta
    dropped = [name for name in theta if ".edges." in name and name.split(".")[4] != "1"]
    inputs = {edge.source for node in adapted.genotype.normal for edge in node}
    assert inputs <= {"input0", "input1", "node0"}
    assert adapted.parameters_total == sum(value.numel() for value in theta.values())
    assert adapted.parameters_kept <= adapted.parameters_total - sum(theta[name].numel() for name in dropped)
    queries = rng.integers(0, 256, (5, 1, 8, 8), dtype=np.uint8)
    answers = Classifier.from_bytes(adapted.artifact).logits(queries)
    expected = adapted.network.logits(torch.from_numpy(queries)).detach().numpy()
    assert np.abs(answers - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())


def test_a_toy_head_sets_the_maximum_number_of_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HEADS, "nearest_direction", NearestDirection)
    config = replace(MINIATURE, network=TOYS["head"])
    model = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
    images = np.zeros((5, 1, 8, 8), np.uint8)
    with pytest.raises(ValueError, match="5 classes; the meta-model's head supports at most 4"):
        adapt(model, images, np.arange(5), list("abcde"), steps=0, seed=0, device="cpu", on_step=lambda *_: None)


def test_a_frozen_stem_is_part_of_the_network_and_not_of_theta(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STEMS, "fixed", Fixed)
    network = CellNetwork(TOYS["stem"])
    theta = network.initial_theta(torch.Generator())
    costs = network.operation_costs.values()
    assert network.fixed_cost + sum(int(cost.sum()) for cost in costs) == sum(v.numel() for v in theta.values())
    assert not any(name.startswith("stem.") for name in theta)


def test_an_unknown_name_is_refused_with_the_names_available() -> None:
    with pytest.raises(ValueError, match="unknown operation 'conv_9x9'; available: avg_pool_3x3, "):
        operation_type("conv_9x9")
    with pytest.raises(ValueError, match="unknown head 'x'; available: gaussian, linear, prototypes"):
        make_head(replace(MINIATURE.network, head="x"))
    with pytest.raises(ValueError, match="unknown stem 'x'; available: convolution, resnet18"):
        make_stem(replace(MINIATURE.network, stem="x"))
