"""Preset ``paper``: the effects of its operations, losses, task learner and both algorithms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from lamanas_core.adapt.adapted import adapt
from lamanas_core.adapt.inner import TaskLearner, adam, steps
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.config import PAPER, PRESETS, Config, NetworkConfig
from lamanas_core.data.episodes import Episode
from lamanas_core.image_spec import ImageSpec
from lamanas_core.losses.paper import PaperLoss
from lamanas_core.meta.gradient import query_logits
from lamanas_core.meta.maml import maml
from lamanas_core.meta.reptile import proxy_value, reptile
from lamanas_core.meta_model import MetaModel
from lamanas_core.search.alpha import drop_paths
from lamanas_core.search.mixing import EdgeWeights
from lamanas_core.search.normalisation import ALL_ROWS
from lamanas_core.search.operations import OPERATIONS
from lamanas_core.search.stems import IMAGENET_DEVIATION, IMAGENET_MEAN, RESNET_NAMES, ResNetStem, load_pretrained
from tests.learning.helpers import first_step, float64_episode, float64_learner

NETWORK = replace(
    PAPER.network, image=ImageSpec(size=8), channels=2, nodes=2, cells=("normal", "reduction"), ways=3, drop_path=0.0
)
TASK = replace(PAPER.task_learner, steps=3, hidden=3, batch=None)
SMALL = Config("paper", NETWORK, TASK)
BY_SGD = replace(SMALL, task_learner=replace(TASK, optimizer="sgd", theta_rate=0.1, alpha_rate=0.1))
STEP = 1e-6


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def with_loss(config: Config, loss: str, residual: bool = True) -> Config:
    return replace(config, task_learner=replace(config.task_learner, loss=loss, residual=residual))  # type: ignore[arg-type]


def after(
    learner: TaskLearner, parameters: Parameters, task: Episode, count: int
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    theta, alpha = parameters.theta, parameters.alpha
    for step in steps(learner, parameters, task.support, task.support_labels, task.ways, count):
        theta, alpha = step.theta, step.alpha
    return theta, alpha


def query_loss(learner: TaskLearner, parameters: Parameters, task: Episode, count: int) -> float:
    theta, alpha = after(learner, parameters, task, count)
    predicted = query_logits(learner, parameters, theta, alpha, task)
    return float(F.cross_entropy(predicted, task.query_labels).detach())


@pytest.mark.parametrize("loss", ["cross_entropy", "fnn", "lstm"])
def test_algorithm_1_is_the_derivative_through_all_steps(loss: str) -> None:
    learner, parameters = float64_learner(with_loss(BY_SGD, loss))
    task = float64_episode()
    gradients = maml(learner, parameters, task, 3, generator()).gradients
    source = torch.Generator().manual_seed(1)
    for part in ("theta.", "alpha.", "phi.", "rates.theta", "rates.alpha"):
        names = [name for name in gradients if name.startswith(part)]
        if not names:
            assert loss == "cross_entropy"
            continue
        direction = {n: torch.randn(gradients[n].shape, generator=source, dtype=torch.float64) for n in names}

        def moved(sign: int, direction: dict[str, Tensor] = direction) -> Parameters:
            named = parameters.named()
            return Parameters.from_named({n: v + sign * STEP * direction.get(n, 0.0) for n, v in named.items()})

        difference = query_loss(learner, moved(1), task, 3) - query_loss(learner, moved(-1), task, 3)
        exact = sum(float((gradients[n] * direction[n]).sum()) for n in names)
        assert exact == pytest.approx(difference / (2 * STEP), rel=2e-3, abs=1e-8), part


def test_no_meta_gradient_is_nan_with_dead_units_and_skipped_operations() -> None:
    learner, parameters = float64_learner(BY_SGD)
    parameters.theta["stem.weight"][0] = 0.0
    parameters.alpha["normal.operations"][:, 0] = 9.0
    gradients = maml(learner, parameters, float64_episode(), 3, generator()).gradients
    assert all(bool(value.isfinite().all()) for value in gradients.values())
    assert any(bool((value == 0).all()) for name, value in gradients.items() if name.startswith("theta.cells"))


def test_first_order_ignores_how_gradients_depend_on_weights_but_still_trains_the_loss() -> None:
    learner, parameters = float64_learner(BY_SGD)
    task = float64_episode()
    first = maml(learner, parameters, task, 2, generator(), "first").gradients
    theta, alpha = after(learner, parameters, task, 2)
    leaves = {name: value.detach().requires_grad_() for name, value in theta.items()}
    loss = F.cross_entropy(query_logits(learner, parameters, leaves, alpha, task), task.query_labels)
    plain = torch.autograd.grad(loss, list(leaves.values()), materialize_grads=True)
    for name, gradient in zip(leaves, plain, strict=True):
        torch.testing.assert_close(first[f"theta.{name}"], gradient)
    assert any(bool(value.abs().max() > 0) for name, value in first.items() if name.startswith("phi."))


def test_algorithm_1_refuses_adam_as_the_inner_optimiser() -> None:
    learner, parameters = float64_learner(SMALL)
    with pytest.raises(ValueError, match="needs SGD as the inner optimiser"):
        maml(learner, parameters, float64_episode(), 1, generator())


@pytest.mark.parametrize("proxy", ["mse", "inner_product", "cosine"])
def test_a_proxys_gradient_equals_finite_differences_and_both_products_share_their_logits(proxy: str) -> None:
    learner, parameters = float64_learner(SMALL)
    task = float64_episode()
    live = replace(parameters, phi={n: v.clone().requires_grad_() for n, v in parameters.phi.items()})
    value = proxy_value(learner, live, task, proxy, first_step(learner, parameters, task))  # type: ignore[arg-type]
    gradients = torch.autograd.grad(value, list(live.phi.values()), materialize_grads=True)
    direction = {n: torch.randn(v.shape, generator=generator(), dtype=torch.float64) for n, v in parameters.phi.items()}

    def at(sign: int) -> float:
        phi = {n: v + sign * STEP * direction[n] for n, v in parameters.phi.items()}
        step = first_step(learner, parameters, task)
        return float(proxy_value(learner, replace(parameters, phi=phi), task, proxy, step).detach())  # type: ignore[arg-type]

    exact = sum(float((g * direction[n]).sum()) for n, g in zip(live.phi, gradients, strict=True))
    assert exact == pytest.approx((at(1) - at(-1)) / (2 * STEP), rel=1e-4)


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_the_inner_product_proxy_is_that_of_the_two_gradients_of_the_step(drop_path: float) -> None:
    learner, parameters = float64_learner(replace(SMALL, network=replace(NETWORK, drop_path=drop_path)))
    task = float64_episode()
    step = first_step(learner, parameters, task, 3, generator())
    whole = first_step(learner, parameters, task, 3).logits
    assert torch.equal(step.logits, whole) == (drop_path == 0)
    theta = {n: v.clone().requires_grad_() for n, v in parameters.theta.items()}
    alpha = {n: v.clone().requires_grad_() for n, v in parameters.alpha.items()}
    features, _ = learner.embed(theta, alpha, task.support, mixing=learner.mixing(0, 3, generator()))
    logits = features @ theta["head.weight"].T + theta["head.bias"]
    variables = [*theta.values(), *alpha.values()]
    losses = (
        learner.learned_loss(parameters.phi, logits, task.support_labels, 0.0)[0],
        F.cross_entropy(logits, task.support_labels),
    )
    a, b = (torch.autograd.grad(loss, variables, retain_graph=True, materialize_grads=True) for loss in losses)
    inner = sum(float((one * other).sum()) for one, other in zip(a, b, strict=True))
    value = proxy_value(learner, parameters, task, "inner_product", step)
    assert float(value.detach()) == pytest.approx(-inner)


@pytest.mark.parametrize("kind", ["fnn", "lstm"])
def test_the_papers_loss_is_a_scalar_function_of_logits_and_labels(kind: str) -> None:
    loss = PaperLoss(kind, "output", 8, 4, generator())
    logits = torch.randn(6, 4, generator=generator()).requires_grad_()
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    value, state = loss(logits, labels, 0.0, None)
    assert value.shape == ()
    assert state is None
    assert bool((torch.autograd.grad(value, logits)[0].abs().sum(1) > 0).all())
    assert float(loss(logits, labels.flip(0), 0.0, None)[0]) != float(value)
    plain = PaperLoss(kind, "none", 8, 4, generator())
    entropy = F.cross_entropy(logits, labels, reduction="none")
    assert float(value) != float(plain(logits, labels, 0.0, None)[0])
    # With an output of 0 only the residual remains: cross-entropy, which the ELU does not change.
    with torch.no_grad():
        loss.output.weight.zero_()
    torch.testing.assert_close(loss(logits, labels, 0.0, None)[0], entropy.mean())
    weight = plain.embedding.weight
    torch.testing.assert_close(weight.T @ weight, torch.eye(5))


@pytest.mark.parametrize("kind", ["fnn", "lstm"])
def test_the_residual_as_printed_is_added_to_the_first_layers_output_before_its_elu(kind: str) -> None:
    """With one unit and all else at 0, L = w ELU(b + H) for the FNN; the LSTM has five layers behind that."""
    loss = PaperLoss(kind, "first_layer", 1, 4, generator())
    with torch.no_grad():
        loss.embedding.weight.zero_()
        loss.embedding.bias.fill_(-2.0)
        loss.output.weight.fill_(3.0)
    logits, labels = torch.randn(6, 4, generator=generator()), torch.tensor([0, 1, 2, 3, 0, 1])
    hidden = F.elu(F.cross_entropy(logits, labels, reduction="none") - 2)[:, None]
    assert bool((hidden < 0).any())
    for layer in loss.layers:
        start = labels[:, None].float()
        hidden = layer(hidden, (start, start))[0]
    torch.testing.assert_close(loss(logits, labels, 0.0, None)[0], 3 * hidden.mean())
    assert len(loss.layers) == (5 if kind == "lstm" else 0)


def test_images_are_normalised_as_imagenets_before_resnets_layers() -> None:
    stem = ResNetStem(replace(NETWORK, image=ImageSpec(size=8, channels=3)))
    seen: list[Tensor] = []
    stem.first.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        stem.to_colour.weight.copy_(torch.eye(3)[:, :, None, None])
        mean = torch.tensor(IMAGENET_MEAN)
        images = torch.stack([mean, mean + torch.tensor(IMAGENET_DEVIATION)])[:, :, None, None].expand(-1, -1, 8, 8)
        stem(images, None, ALL_ROWS)
    torch.testing.assert_close(seen[0][0], torch.zeros(3, 224, 224))
    torch.testing.assert_close(seen[0][1], torch.ones(3, 224, 224))


def test_the_papers_lstm_initially_equals_its_residual_and_its_fnn_does_not() -> None:
    """Five layers whose initial states are the label hardly pass on the logits (docs/reproduction.md)."""
    logits = torch.randn(100, 20, generator=generator()).requires_grad_()
    labels = torch.arange(100) % 20
    (truth,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    lengths = {}
    for kind in ("fnn", "lstm"):
        loss = PaperLoss(kind, "none", PAPER.task_learner.hidden, 20, generator())
        (slope,) = torch.autograd.grad(loss(logits, labels, 0.0, None)[0], logits)
        lengths[kind] = float(slope.norm() / truth.norm())
    assert lengths["lstm"] < 1e-4
    assert lengths["fnn"] > 0.1


@pytest.mark.parametrize(("kind", "rate", "reached"), [("fnn", 0.1, 0.5), ("lstm", 0.001, 0.65)])
def test_the_papers_networks_can_learn_the_slope_of_cross_entropy(kind: str, rate: float, reached: float) -> None:
    """Without a residual and from integer labels, so that the low accuracies in Table 1 are not due to a lack of
    capacity (docs/reproduction.md).
    """
    source = generator()
    loss, labels = PaperLoss(kind, "none", PAPER.task_learner.hidden, 20, source), torch.arange(100) % 20
    optimizer = torch.optim.Adam(loss.parameters(), rate)
    cosine = torch.zeros(())
    for step in range(101):
        logits = (0.3 * torch.randn(100, 20, generator=source)).requires_grad_()
        (slope,) = torch.autograd.grad(loss(logits, labels, 0.0, None)[0], logits, create_graph=True)
        (truth,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
        cosine = F.cosine_similarity(slope.flatten(), truth.flatten(), dim=0)
        assert step > 0 or abs(float(cosine.detach())) < 0.05
        optimizer.zero_grad()
        torch.autograd.backward(-cosine)
        optimizer.step()
    assert float(cosine.detach()) > reached


@pytest.mark.parametrize("seed", range(3))
def test_with_the_residual_the_fnns_slope_is_that_of_cross_entropy_and_a_part_that_ignores_the_label(seed: int) -> None:
    """Initially, and near 0 where adaptation starts; the latter is why it learns little (docs/reproduction.md)."""
    loss = PaperLoss("fnn", "first_layer", 64, 20, torch.Generator().manual_seed(seed))
    logits, labels = torch.zeros(20, 20, requires_grad=True), torch.arange(20)
    slope, truth = (
        torch.autograd.grad(value, logits)[0]
        for value in (loss(logits, labels, 0.0, None)[0], F.cross_entropy(logits, labels))
    )
    ignoring = slope.mean(0)
    own = slope - ignoring
    assert abs(float(F.cosine_similarity(own.flatten(), truth.flatten(), dim=0))) > 0.95
    assert float(truth.mean(0).norm()) < 1e-6
    assert float(ignoring.norm()) > 0.15 * float(own.norm(dim=1).mean())


def test_the_first_step_of_adam_without_momentum_is_the_sign_of_the_gradient() -> None:
    gradient = torch.tensor([3.0, -0.5, 0.0])
    torch.testing.assert_close(adam(gradient, None, 1)[0], torch.tensor([1.0, -1.0, 0.0]))


def test_the_temperature_falls_linearly_over_the_steps() -> None:
    learner = TaskLearner.build(SMALL)
    assert [learner.mixing(k, 5, None).temperature for k in range(5)] == pytest.approx([1, 0.7625, 0.525, 0.2875, 0.05])


def test_paths_are_dropped_in_training_only_and_the_others_are_rescaled() -> None:
    config = NetworkConfig(nodes=1, operations=("skip", "conv_3x3"), drop_path=0.5)
    weights = EdgeWeights(torch.full((2, 2), 0.5), ((0, 1), (0, 1)))
    seen = set()
    source = generator()
    for _ in range(50):
        dropped = drop_paths(weights, config, source)
        seen.add(dropped.kept)
        torch.testing.assert_close(dropped.weights, torch.tensor([[0.5, 1.0], [0.5, 1.0]]))
        assert all(0 in kept for kept in dropped.kept)
    assert seen == {((0, 1), (0, 1)), ((0,), (0, 1)), ((0, 1), (0,)), ((0,), (0,))}
    learner = TaskLearner.build(replace(SMALL, network=replace(NETWORK, drop_path=0.2)))
    assert learner.mixing(0, 1, None).dropped is None
    assert learner.mixing(0, 1, source).dropped != learner.mixing(0, 1, source).dropped


@pytest.mark.parametrize("drop_path", [0.2, 0.5])
@pytest.mark.parametrize("kept", [((0, 1), (1,)), ((1, 2), (1,)), ((1, 2), (1, 2)), ((), (1, 2)), ((1,), ())])
def test_the_mean_weight_of_an_operation_is_that_without_dropped_paths(
    kept: tuple[tuple[int, ...], ...], drop_path: float
) -> None:
    """With and without an operation that is never dropped, and as the node's only operation."""
    config = NetworkConfig(nodes=1, operations=("skip", "conv_3x3", "sep_conv_3x3"), drop_path=drop_path)
    weights = EdgeWeights(torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.3, 0.1]]), kept)
    total, source, draws = torch.zeros(2, 3), generator(), 4000
    for _ in range(draws):
        dropped = drop_paths(weights, config, source)
        for edge, operations in enumerate(dropped.kept):
            total[edge, list(operations)] += dropped.weights[edge, list(operations)]
    expected = torch.zeros(2, 3)
    for edge, operations in enumerate(kept):
        expected[edge, list(operations)] = weights.weights[edge, list(operations)]
    # Of one draw the relative deviation is at most 1, of the mean 0.016.
    torch.testing.assert_close(total / draws, expected, rtol=0.06, atol=0)


def test_a_nodes_only_operation_keeps_its_weight() -> None:
    config = NetworkConfig(nodes=1, operations=("skip", "conv_3x3"), drop_path=0.3)
    alone, source = EdgeWeights(torch.full((2, 2), 0.5), ((1,), ())), generator()
    for _ in range(10):
        dropped = drop_paths(alone, config, source)
        assert dropped.kept == ((1,), ())
        assert float(dropped.weights[0, 1]) == 0.5


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_the_artifact_of_each_operation_equals_the_network(operation: str) -> None:
    check_artifact(replace(SMALL, network=replace(NETWORK, operations=(operation,), temperature=0.05)))


def test_the_artifact_of_the_whole_search_space_equals_the_network() -> None:
    check_artifact(SMALL)


def test_the_resnet_stem_runs() -> None:
    config = replace(SMALL, network=replace(NETWORK, stem="resnet18", channels=28, operations=("skip", "conv_3x3")))
    check_artifact(config)


def test_the_small_resnet_preset_runs_a_task_of_algorithm_2() -> None:
    """With 8 channels after the stem; a strided 1 x 1 convolution crashed the process here."""
    preset = PRESETS["paper_resnet18_small"]
    preset = replace(preset, network=replace(preset.network, ways=2))
    learner, parameters = TaskLearner.build(preset), initial_parameters(preset, 0)
    images, labels = torch.rand(4, 1, 28, 28, generator=generator()), torch.arange(4) % 2
    asked = reptile(
        learner, parameters, Episode(images, labels, images, labels, 2), 1, generator(), "mse", "each_step", 0.01
    )
    assert all(bool(value.isfinite().all()) for value in asked.gradients.values())
    assert bool(asked.gradients["theta.cells.1.edges.0.2.conv.weight"].abs().max() > 0)


def test_pretrained_weights_are_loaded_into_the_stem_and_a_wrong_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    config = replace(SMALL, network=replace(NETWORK, stem="resnet18"))
    theta = initial_parameters(config, 0).theta
    saved = {name: torch.rand(theta[f"stem.{ours}"].shape) for name, ours in RESNET_NAMES.items()}
    save_file(saved, path)
    loaded = load_pretrained(theta, path)
    torch.testing.assert_close(loaded["stem.first.weight"], saved["conv1.weight"])
    torch.testing.assert_close(loaded["stem.behind.weight"], theta["stem.behind.weight"])
    save_file({"conv1.weight": saved["conv1.weight"]}, path)
    with pytest.raises(ValueError, match=r"bn1\.weight of shape \(64,\)"):
        load_pretrained(theta, path)
    with pytest.raises(ValueError, match="no ResNet-18 stem"):
        load_pretrained(initial_parameters(SMALL, 0).theta, path)


def test_more_classes_than_the_linear_head_has_are_refused() -> None:
    model = MetaModel(initial_parameters(SMALL, 0), {"config": SMALL.to_json()})
    images, labels = np.zeros((4, 1, 8, 8), np.uint8), np.arange(4)
    with pytest.raises(ValueError, match="4 classes; the meta-model's head supports at most 3"):
        adapt(model, images, labels, list("abcd"), steps=0, seed=0, device="cpu", on_step=lambda *_: None)


@pytest.mark.parametrize("loss", ["cross_entropy", "fnn", "lstm"])
def test_fewer_classes_than_the_linear_head_has_are_adapted_to(loss: str) -> None:
    config = with_loss(SMALL, loss)
    model = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
    images, labels = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8), np.arange(4) % 2
    adapted = adapt(model, images, labels, ["a", "b"], steps=2, seed=0, device="cpu", on_step=lambda *_: None)
    assert Classifier.from_bytes(adapted.artifact).logits(images).shape == (4, 2)


def check_artifact(config: Config) -> None:
    """The artifact's logits equal those of the adapted network (K = 1)."""
    model = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
    rng = np.random.default_rng(0)
    support, labels = rng.integers(0, 256, (6, 1, 8, 8), dtype=np.uint8), np.arange(6) % 3
    adapted = adapt(model, support, labels, list("abc"), steps=1, seed=0, device="cpu", on_step=lambda *_: None)
    queries = rng.integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    answers = Classifier.from_bytes(adapted.artifact).logits(queries)
    expected = adapted.network.logits(torch.from_numpy(queries)).detach().numpy()
    assert np.abs(answers - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
