"""The artifact equals the adapted network, and its predictions depend only on the image."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from lamanas_core.adapt.adapted import Adapted, adapt, finish, minibatches
from lamanas_core.adapt.inner import steps
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.artifact import ArtifactError, Classifier
from lamanas_core.config import PRESETS
from lamanas_core.data.episodes import to_float
from lamanas_core.image_spec import ImageSpec
from lamanas_core.images import load
from lamanas_core.meta_model import MetaModel, MetaModelError, shipped
from lamanas_core.search.operations import OPERATIONS
from lamanas_core.search.stems import STEMS
from lamanas_core.search.supernet import pooled
from tests.conftest import ROOT
from tests.learning.helpers import MINIATURE, glyph_support


@pytest.fixture(scope="module")
def model() -> MetaModel:
    return MetaModel.from_bytes(*shipped())


def run(model: MetaModel, support: np.ndarray, labels: np.ndarray, k: int | None = None) -> Adapted:
    classes = [f"class {i}" for i in range(int(labels.max()) + 1)]
    return adapt(model, support, labels, classes, steps=k, seed=0, device="cpu", on_step=lambda *_: None)


def untrained(**changed: Any) -> MetaModel:
    """A tiny meta-model with random weights; keywords as of ``NetworkConfig``."""
    config = replace(MINIATURE, network=replace(MINIATURE.network, **changed))
    return MetaModel(initial_parameters(config, 0), {"config": config.to_json()})


def test_the_artifact_equals_the_adapted_network_on_50_random_episodes(model: MetaModel) -> None:
    rng = np.random.default_rng(0)
    for episode in range(50):
        ways = int(rng.integers(2, 7))
        support, labels = glyph_support(ways, rng.integers(1, 4, ways).tolist(), seed=episode)
        images, targets = to_float(torch.from_numpy(support)), torch.from_numpy(labels)
        k = episode % 2
        theta, alpha = model.parameters.theta, model.parameters.alpha
        for step in steps(model.learner, model.parameters, images, targets, ways, k):
            theta, alpha = step.theta, step.alpha
        after = replace(model.parameters, theta=theta, alpha=alpha)
        network = finish(model.learner, after, images, targets, ways)
        queries, _ = glyph_support(3, [1, 1, 1], seed=1000 + episode)
        with torch.no_grad():
            expected = network.logits(torch.from_numpy(queries)).numpy()
        actual = Classifier.from_bytes(run(model, support, labels, k).artifact).logits(queries)
        assert np.abs(actual - expected).max() / np.abs(expected).max() < 1e-4


@pytest.mark.parametrize("side", range(1, 9))
@pytest.mark.parametrize("to", range(1, 7))
def test_pooling_is_adaptive_average_pooling(side: int, to: int) -> None:
    x = torch.rand(2, 3, side, side, dtype=torch.float64)
    torch.testing.assert_close(pooled(x, to), torch.nn.functional.adaptive_avg_pool2d(x, to))


@pytest.mark.parametrize("size", [4, 10, 16, 28])
@pytest.mark.parametrize("pool_to", [1, 2, 3, 4, 5])
def test_the_artifact_pools_as_the_network_does(size: int, pool_to: int) -> None:
    """The last feature map has a side of 2, 5, 8 or 14, and bins are equal, overlapping, unequal or repeated."""
    rng = np.random.default_rng(0)
    support, queries = (rng.integers(0, 256, (6, 1, size, size), dtype=np.uint8) for _ in range(2))
    model = untrained(image=ImageSpec(size=size), stem_stride=1, pool_to=pool_to)
    adapted = run(model, support, np.arange(6) % 3, 0)
    with torch.no_grad():
        expected = adapted.network.logits(torch.from_numpy(queries)).numpy()
    actual = Classifier.from_bytes(adapted.artifact).logits(queries)
    assert np.abs(actual - expected).max() / np.abs(expected).max() < 1e-5


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize("stem", sorted(STEMS))
def test_every_convolution_states_its_kernel_shape(operation: str, stem: str) -> None:
    """It follows from the weight, but OpenCV refuses a file without it."""
    images = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    adapted = run(untrained(operations=(operation,), stem=stem), images, np.arange(4) % 2, 0)
    graph = onnx.load_from_string(adapted.artifact).graph
    weights = {constant.name: tuple(constant.dims) for constant in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert convolutions
    for node in convolutions:
        stated = {attribute.name: tuple(attribute.ints) for attribute in node.attribute}
        assert stated["kernel_shape"] == weights[node.input[1]][2:]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            ImageSpec(size=8),
            "uint8, (n, 1, 8, 8)|at least 1024 pixels|keeps 512|1023, 4095 and 65535|darker than grey 192",
        ),
        (
            ImageSpec(size=8),
            "0.299 R + 0.587 G + 0.114 B|median of the pixels of the border|longer side has 8 pixels|8 x 8",
        ),
        (ImageSpec(size=8, channels=3), "(n, 3, 8, 8)|Red, green and blue are each treated"),
        (ImageSpec(8, 3, False), "(n, 3, 8, 8)|darker than grey 192|square in its middle|sRGB|are red, green and blue"),
        (ImageSpec(8, 1, False), "(n, 1, 8, 8)|square in its middle|scaled to 8 x 8|0.299 R + 0.587 G + 0.114 B"),
        (ImageSpec(300, 3, False), "at least 1200 pixels|keeps 600|scaled to 300 x 300"),
    ],
)
def test_the_metadata_say_in_words_and_numbers_what_an_image_becomes(spec: ImageSpec, words: str) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, *spec.shape), dtype=np.uint8)
    model = onnx.load_from_string(run(untrained(image=spec), images, np.arange(4) % 2, 0).artifact)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert ImageSpec(**json.loads(metadata["image"])) == spec
    assert [part for part in words.split("|") if part not in metadata["preparation"]] == []
    assert ("median" in metadata["preparation"]) == spec.drawings
    assert "known is false if it probably belongs to none" in metadata["answers"]


def test_a_prediction_depends_only_on_its_image(model: MetaModel) -> None:
    classifier = Classifier.from_bytes(run(model, *glyph_support(4, [2] * 4, seed=1)).artifact)
    queries, _ = glyph_support(5, [2] * 5, seed=2)
    together = classifier.probabilities(queries)
    alone = np.concatenate([classifier.probabilities(query[None]) for query in queries])
    np.testing.assert_array_equal(together, alone)


def test_the_runtime_writes_no_files_and_sends_no_reports(model: MetaModel, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    file = tmp_path / "classifier.onnx"
    file.write_bytes(run(model, *glyph_support(2, [1, 1], seed=1)).artifact)
    # The environment of a user's process: in CI the runtime sends no reports anyway.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    script = "import sys, pathlib; from lamanas_core.artifact import Classifier; "
    script += "print(Classifier.from_bytes(pathlib.Path(sys.argv[1]).read_bytes()).classes)"
    done = subprocess.run(
        [sys.executable, "-c", script, file], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "('class 0', 'class 1')\n"
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []


def test_the_order_of_classes_does_not_change_predictions(model: MetaModel) -> None:
    support, labels = glyph_support(4, [2, 1, 3, 2], seed=3)
    order = np.array([2, 0, 3, 1])
    queries, _ = glyph_support(4, [2] * 4, seed=4)
    plain = Classifier.from_bytes(run(model, support, labels).artifact).probabilities(queries)
    renamed = Classifier.from_bytes(run(model, support, order[labels]).artifact).probabilities(queries)
    np.testing.assert_allclose(renamed[:, order], plain, atol=1e-4)


def test_a_negative_image_gets_the_same_prediction(model: MetaModel) -> None:
    from PIL import ImageOps

    from lamanas_core.data.sources.glyphs import draw, glyph_class, png

    rng = np.random.default_rng(5)
    drawing = draw(glyph_class(rng), rng)
    twins = [load(png(image), ImageSpec(), max_pixels=20_000) for image in (drawing, ImageOps.invert(drawing))]
    np.testing.assert_array_equal(twins[0], twins[1])
    classifier = Classifier.from_bytes(run(model, *glyph_support(3, [2] * 3, seed=6)).artifact)
    answers = classifier.probabilities(np.stack(twins))
    np.testing.assert_array_equal(answers[0], answers[1])


def test_adapting_again_gives_the_same_bytes(model: MetaModel) -> None:
    task = glyph_support(3, [2] * 3, seed=7)
    assert run(model, *task).artifact == run(model, *task).artifact


def test_the_steps_change_weights_and_architecture(model: MetaModel) -> None:
    support, labels = glyph_support(5, [3] * 5, seed=8)
    images, targets = to_float(torch.from_numpy(support)), torch.from_numpy(labels)
    last = list(steps(model.learner, model.parameters, images, targets, 5, 3))[-1]
    for old, new in ((model.parameters.theta, last.theta), (model.parameters.alpha, last.alpha)):
        assert any(not torch.equal(old[name], new[name]) for name in old)


def test_adapting_does_not_change_the_meta_model(model: MetaModel) -> None:
    before = model.to_bytes()
    adapted = run(model, *glyph_support(3, [2] * 3, seed=11))
    assert adapted.artifact != run(model, *glyph_support(3, [2] * 3, seed=11), 0).artifact
    assert model.to_bytes() == before
    assert all(torch.equal(v, adapted.network.parameters.phi[n]) for n, v in model.parameters.phi.items())


def test_the_adaptation_reports_the_parameters_it_kept(model: MetaModel) -> None:
    adapted = run(model, *glyph_support(3, [2, 1, 3], seed=9))
    assert 0 < adapted.parameters_kept < adapted.parameters_total
    assert len(adapted.losses) == model.config.task_learner.steps


def test_support_accuracy_is_that_of_the_artifact(model: MetaModel) -> None:
    """The classes' images have nothing in common but their label, and one image has two labels."""
    support, _ = glyph_support(8, [1] * 8, seed=12)
    support[3] = support[0]
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 3])
    adapted = run(model, support, labels, 0)
    answers = Classifier.from_bytes(adapted.artifact).logits(support).argmax(1)
    assert adapted.support_accuracy == pytest.approx((answers == labels).mean())
    assert adapted.support_accuracy < 1


def test_an_adaptation_can_do_without_judging_the_support_set(model: MetaModel) -> None:
    support, labels = glyph_support(3, [3] * 3, seed=12)
    classes = list("abc")
    judged, plain = (
        adapt(model, support, labels, classes, steps=1, seed=0, device="cpu", on_step=lambda *_: None, judged=judged)
        for judged in (True, False)
    )
    assert judged.leave_one_out_accuracy is not None
    assert (plain.leave_one_out_accuracy, plain.suspects) == (None, ())
    assert plain.artifact == judged.artifact


def test_classes_with_a_single_image_have_no_leave_one_out_accuracy(model: MetaModel) -> None:
    assert run(model, *glyph_support(3, [1, 1, 1], seed=9)).leave_one_out_accuracy is None


def test_images_that_nothing_can_be_learned_from_give_a_warning(model: MetaModel) -> None:
    blank = np.zeros((4, 1, 28, 28), np.uint8)
    assert "are blank" in run(model, blank, np.array([0, 0, 1, 1]), 0).warnings[0]
    assert run(model, *glyph_support(3, [2] * 3, seed=10), 0).warnings == ()


def test_large_support_sets_are_split_into_minibatches_with_every_class() -> None:
    labels = torch.arange(1000) % 50
    batches = minibatches(PRESETS["serving"], labels, 50, 3, torch.Generator().manual_seed(0))
    for batch in batches:
        assert torch.bincount(labels[batch], minlength=50).tolist() == [5] * 50
    assert not torch.equal(batches[0], batches[1])


def test_batches_use_the_whole_support_set_before_they_repeat_it() -> None:
    labels = torch.arange(10) % 2
    batches = minibatches(PRESETS["paper"], labels.repeat(10), 2, 6, torch.Generator().manual_seed(0))
    assert sorted(torch.cat(batches[:5]).tolist()) == list(range(100))
    assert len(batches[5]) == 20


def test_no_batch_has_an_image_twice() -> None:
    batches = minibatches(PRESETS["paper"], torch.arange(50) % 2, 2, 20, torch.Generator().manual_seed(0))
    assert {len(set(batch.tolist())) for batch in batches} == {20}
    used = torch.bincount(torch.cat(batches))
    assert (int(used.min()), int(used.max())) == (8, 8)


def test_of_many_classes_a_batch_has_two_images_each_of_as_many_as_fit_and_uses_all_in_turn() -> None:
    labels = torch.arange(900) % 300
    batches = minibatches(PRESETS["serving"], labels, 300, 12, torch.Generator().manual_seed(0))
    counts = torch.stack([torch.bincount(labels[batch], minlength=300) for batch in batches])
    assert set(counts.flatten().tolist()) == {0, 2}
    assert counts.sum(1).tolist() == [250] * 12
    assert (counts > 0).sum(0).tolist() == [5] * 300
    assert {len(set(batch.tolist())) for batch in batches} == {250}
    # A class in two batches has other images in them, sometimes the third.
    assert len(set(torch.cat(batches).tolist())) > 890


def test_a_class_with_one_image_takes_one_place_in_a_batch() -> None:
    labels = torch.arange(300)
    batches = minibatches(PRESETS["serving"], labels, 300, 6, torch.Generator().manual_seed(0))
    assert [len(set(batch.tolist())) for batch in batches] == [250] * 6
    assert torch.bincount(torch.cat(batches)).tolist() == [5] * 300
    labels = torch.cat([torch.arange(200), torch.arange(100)])  # 100 classes with two images, 100 with one
    batches = minibatches(PRESETS["serving"], labels, 200, 2, torch.Generator().manual_seed(0))
    for batch in batches:
        counts = torch.bincount(labels[batch], minlength=200)
        assert 249 <= len(batch) <= 250
        assert set(counts[:100].tolist()) == {0, 2}
        assert set(counts[100:].tolist()) == {0, 1}


def test_a_step_on_some_of_the_classes_equals_a_step_on_a_task_of_these_classes(model: MetaModel) -> None:
    support, labels = glyph_support(4, [3] * 4, seed=13)
    images, targets = to_float(torch.from_numpy(support)), torch.from_numpy(labels)
    rows = torch.nonzero(targets % 2).squeeze(1)
    (part,) = steps(model.learner, model.parameters, images, targets, 4, 1, batches=[rows])
    (alone,) = steps(model.learner, model.parameters, images[rows], targets[rows] // 2, 2, 1)
    assert torch.equal(part.loss, alone.loss)
    assert all(torch.equal(value, alone.theta[name]) for name, value in part.theta.items())


def test_an_adaptation_to_300_classes_has_finite_losses_and_is_useful(model: MetaModel) -> None:
    images, labels = glyph_support(300, [3] * 100 + [2] * 200, seed=14)
    asked = np.arange(0, 300, 3)
    adapted = run(model, np.delete(images, asked, 0), np.delete(labels, asked))
    assert np.isfinite(adapted.losses).all()
    answers = Classifier.from_bytes(adapted.artifact).logits(images[asked]).argmax(1)
    assert (answers == labels[asked]).mean() > 0.9


def test_bytes_that_are_not_an_artifact_are_refused() -> None:
    with pytest.raises(ArtifactError):
        Classifier.from_bytes(b"not ONNX")


def test_a_meta_model_is_read_back_from_its_file_and_refuses_another_card(model: MetaModel) -> None:
    weights, card = shipped()
    assert MetaModel.from_bytes(model.to_bytes(), card).version == model.version
    other = card | {"config": card["config"] | {"network": card["config"]["network"] | {"channels": 8}}}
    with pytest.raises(MetaModelError, match="do not match"):
        MetaModel.from_bytes(weights, other)
    with pytest.raises(MetaModelError):
        MetaModel.from_bytes(b"damaged", card)
