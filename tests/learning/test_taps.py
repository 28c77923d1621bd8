"""The photo model's network: a backbone with cells on its maps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from lamanas_core.adapt.adapted import adapt
from lamanas_core.adapt.inner import TaskLearner, steps
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.backbones.joined import joined
from lamanas_core.backbones.runtime import open_backbone
from lamanas_core.backbones.storage import BackboneError, backbone_file, named
from lamanas_core.config import PRESETS, Config
from lamanas_core.image_spec import ImageSpec
from lamanas_core.meta_model import MetaModel
from lamanas_core.onnx_runtime import open_session
from lamanas_core.search.mixing import Mixing
from lamanas_core.search.tap_operations import TAP_OPERATIONS
from lamanas_core.search.taps import TapNetwork

# Without crops, so that the maps of the images are all that an adaptation takes.
PHOTOS = replace(PRESETS["photos"], network=replace(PRESETS["photos"].network, crops=0))
WAYS, SHOTS = 3, 3


def photos(count: int, seed: int = 0) -> np.ndarray:
    """Smooth random images, uint8 (count, 3, 224, 224)."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fine = torch.nn.functional.interpolate(coarse, 224, mode="bilinear")
    return (fine * 255).byte().numpy()


def moved(config: Config = PHOTOS) -> Parameters:
    """Parameters whose operations are not 0."""
    generator = torch.Generator().manual_seed(1)
    initial = initial_parameters(config, 0)
    theta = {
        name: value + 0.05 * torch.randn(value.shape, generator=generator) if name.startswith("maps") else value
        for name, value in initial.theta.items()
    }
    return replace(initial, theta=theta)


@pytest.fixture(scope="module")
def inputs() -> Tensor:
    network = TaskLearner.build(PHOTOS).network
    return network.inputs(torch.from_numpy(photos(WAYS * SHOTS)))


LABELS = torch.arange(WAYS).repeat_interleave(SHOTS)


def test_before_any_step_the_features_are_the_backbones(inputs: Tensor) -> None:
    learner, parameters = TaskLearner.build(PHOTOS), initial_parameters(PHOTOS, 0)
    alpha = learner.network.initial_alpha()
    features, _ = learner.embed(parameters.theta, alpha, inputs)
    backbone = learner.network.backbone  # type: ignore[attr-defined]
    maps = backbone.unpacked(inputs[0].numpy())
    head = np.einsum("oc,cij->oij", backbone.head["head_weight"][:, :, 0, 0], maps["map7"][0])
    head = np.clip(head + backbone.head["head_bias"][:, None, None], 0, 6).mean((1, 2))
    blocks = [maps["map14"][0].mean((1, 2)), maps["map14"][0].std((1, 2)), maps["map7"][0].mean((1, 2))]
    blocks += [maps["map7"][0].std((1, 2)), head]
    expected = []
    for block in blocks:
        power = np.sign(block) * np.sqrt(np.abs(block))
        expected.append(power / np.linalg.norm(power))
    assert np.abs(features[0].numpy() - np.concatenate(expected)).max() < 0.01
    assert all(not value.any() for name, value in parameters.theta.items() if name.startswith("maps"))


@pytest.mark.parametrize("operation", [name for name, kind in TAP_OPERATIONS.items() if kind is not None])
def test_each_operation_changes_the_features_and_its_graph_agrees(operation: str, inputs: Tensor) -> None:
    config = replace(PHOTOS, network=replace(PHOTOS.network, operations=("none", operation)))
    model = MetaModel(moved(config), {"config": config.to_json()})
    plain = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
    found = [
        adapt(
            one,
            inputs.numpy(),
            LABELS.numpy(),
            ["a", "b", "c"],
            steps=1,
            seed=0,
            device="cpu",
            on_step=lambda *_: None,
            judged=False,
        )
        for one in (model, plain)
    ]
    queries = photos(2, seed=7)
    answers = [one.network.logits(torch.from_numpy(queries)).detach().numpy() for one in found]
    assert np.abs(answers[0] - answers[1]).max() > 1e-4
    exported = Classifier.from_bytes(found[0].artifact).logits(queries)
    assert np.abs(exported - answers[0]).max() < 1e-4 * np.abs(answers[0]).max()


def test_a_classifier_answers_for_images_as_for_their_maps(inputs: Tensor) -> None:
    model = MetaModel(moved(), {"config": PHOTOS.to_json()})
    images = photos(WAYS * SHOTS)
    adapted = adapt(
        model, images, LABELS.numpy(), ["a", "b", "c"], steps=2, seed=0, device="cpu", on_step=lambda *_: None
    )
    of_maps = adapt(
        model, inputs.numpy(), LABELS.numpy(), ["a", "b", "c"], steps=2, seed=0, device="cpu", on_step=lambda *_: None
    )
    assert adapted.artifact == of_maps.artifact
    classifier = Classifier.from_bytes(adapted.artifact)
    assert classifier.image == ImageSpec(224, 3, False)
    assert np.array_equal(classifier.probabilities(images), classifier.probabilities(inputs.numpy()))


def test_the_joined_file_needs_no_backbone_and_gives_equal_answers(inputs: Tensor) -> None:
    model = MetaModel(moved(), {"config": PHOTOS.to_json()})
    artifact = adapt(
        model, inputs.numpy(), LABELS.numpy(), ["a", "b", "c"], steps=1, seed=0, device="cpu", on_step=lambda *_: None
    ).artifact
    whole = joined(artifact)
    assert len(artifact) < 200_000
    assert len(whole) < 6_000_000
    assert "backbone" not in open_session(whole).get_modelmeta().custom_metadata_map
    queries = photos(2, seed=3)
    alone, service = Classifier.from_bytes(whole), Classifier.from_bytes(artifact)
    assert (alone.classes, alone.image) == (service.classes, service.image)
    assert np.array_equal(alone.probabilities(queries), service.probabilities(queries))
    assert joined(whole) == whole


def assert_adapts(backbone: str) -> None:
    """A model on this backbone, which has no next layer, adapts, and all forms of the classifier give equal answers."""
    config = replace(PHOTOS, network=replace(PHOTOS.network, backbone=backbone))
    model = MetaModel(moved(config), {"config": config.to_json()})
    images = photos(len(LABELS))
    adapted = adapt(
        model, images, LABELS.numpy(), ["a", "b", "c"], steps=2, seed=0, device="cpu", on_step=lambda *_: None
    )
    queries = photos(2, seed=3)
    logits = adapted.network.logits(torch.from_numpy(queries)).detach().numpy()
    alone, service = Classifier.from_bytes(joined(adapted.artifact)), Classifier.from_bytes(adapted.artifact)
    assert np.abs(service.logits(queries) - logits).max() < 1e-4 * np.abs(logits).max()
    assert np.array_equal(alone.probabilities(queries), service.probabilities(queries))
    assert [edge.source for (edge,) in adapted.genotype.normal] == list(open_backbone(backbone).shapes)
    assert sum(edge.weight for (edge,) in adapted.genotype.normal) == pytest.approx(len(adapted.genotype.normal))


def test_a_backbone_of_ones_own_without_a_next_layer_is_adapted_and_joined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(tmp_path))
    shipped = onnx.load_model_from_string(backbone_file(PHOTOS.network.backbone or ""))
    maps = [output for output in shipped.graph.output if output.name.startswith("map")]
    del shipped.graph.output[:]
    shipped.graph.output.extend(maps)
    next(node for node in shipped.graph.node if node.op_type == "Clip").input[1] = ""  # an optional input is left out
    data = shipped.SerializeToString()
    name = named("own", data)
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / f"{name}.onnx").write_bytes(data)
    assert_adapts(name)


def test_alpha_weighs_the_maps_and_the_operations(inputs: Tensor) -> None:
    learner, parameters = TaskLearner.build(PHOTOS), moved()
    base, _ = learner.embed(parameters.theta, parameters.alpha, inputs)
    sizes = [2 * 112, 2 * 320, 1280]
    for number in range(3):
        inputs_alpha = torch.zeros(3).index_fill(0, torch.tensor(number), 30.0)
        alpha = parameters.alpha | {"inputs": inputs_alpha}
        features, _ = learner.embed(parameters.theta, alpha, inputs)
        lengths = [float(block.norm(dim=1).max()) for block in torch.split(features, sizes, dim=1)]
        assert lengths[number] > 2.9
        assert all(length < 1e-3 for i, length in enumerate(lengths) if i != number)
    nothing = torch.zeros(2, 4)
    nothing[:, 0] = 30.0
    features, _ = learner.embed(parameters.theta, parameters.alpha | {"operations": nothing}, inputs)
    initial = initial_parameters(PHOTOS, 0)
    expected, _ = learner.embed(initial.theta, parameters.alpha, inputs)
    assert torch.allclose(features, expected, atol=1e-5)
    assert not torch.allclose(base, expected, atol=1e-3)


def test_dropped_operations_are_not_in_the_graph_nor_counted() -> None:
    network = TaskLearner.build(PHOTOS).network
    alpha = network.initial_alpha()
    everything = network.kept_cost(network.pruned(alpha))
    alpha["operations"][1, 2] = -30.0
    assert everything - network.kept_cost(network.pruned(alpha)) == 320 * 320
    names = [operation.name for operation in network.genotype(alpha).normal[1][0].operations]
    assert names == ["none", "scale", "depthwise_3x3"]
    assert [node[0].source for node in network.genotype(alpha).normal] == ["map14", "map7", "node1"]


def test_steps_lower_the_loss_of_tasks_that_the_backbone_does_not_solve(inputs: Tensor) -> None:
    learner, parameters = TaskLearner.build(PHOTOS), initial_parameters(PHOTOS, 0)
    shuffled = LABELS[torch.tensor([0, 3, 6, 1, 4, 7, 2, 5, 8])]
    found = [float(step.loss) for step in steps(learner, parameters, inputs, shuffled, WAYS, 5)]
    assert found[-1] < found[0]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_gradient_is_that_of_finite_differences(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    network = TaskLearner.build(PHOTOS).network
    assert isinstance(network, TapNetwork)
    parameters = moved().map(torch.Tensor.double)
    maps = torch.rand(2, 37632, generator=generator).double()
    along = torch.randn(2, network.features, generator=generator).double()

    def value(theta: dict[str, Tensor], alpha: dict[str, Tensor]) -> Tensor:
        features, _ = network(theta, network.weights(alpha, Mixing(1.0, 0.0)), maps)
        return (features * along).sum()

    theta = {name: tensor.requires_grad_() for name, tensor in parameters.theta.items() if name.startswith("maps")}
    alpha = {name: tensor.requires_grad_() for name, tensor in parameters.alpha.items()}
    variables = [*theta.values(), *alpha.values()]
    gradients = torch.autograd.grad(value(theta, alpha), variables)
    directions = [torch.randn(tensor.shape, generator=generator).double() for tensor in variables]
    slope = sum(float((g * d).sum()) for g, d in zip(gradients, directions, strict=True))

    def at(size: float) -> float:
        shifted = [v.detach() + size * d for v, d in zip(variables, directions, strict=True)]
        names = [*theta, *alpha]
        named = dict(zip(names, shifted, strict=True))
        return float(value({n: named[n] for n in theta}, {n: named[n] for n in alpha}))

    assert (at(1e-5) - at(-1e-5)) / 2e-5 == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_a_model_on_an_unknown_backbone_is_refused() -> None:
    config = PHOTOS.to_json()
    config["network"]["backbone"] = "lite9-000000000000"
    with pytest.raises(BackboneError):
        MetaModel(initial_parameters(PHOTOS, 0), {"config": config})
