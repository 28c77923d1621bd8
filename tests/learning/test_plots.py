"""Plots of runs and models, as PNG and SVG files."""

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.func import functional_call

from cli.main import main
from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.data.episodes import to_float
from lamanas_core.data.folders import load_dataset
from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.heads.prototypes import leave_one_out_logits
from lamanas_core.image_spec import ImageSpec
from lamanas_core.measure.landscape import _plane, loss_landscape, support_set
from lamanas_core.meta_model import MetaModel, write
from lamanas_core.plots import curves, genotype
from lamanas_core.search.operations import OPERATIONS
from lamanas_core.train.run_folder import Curves, keep_phi
from tests.learning.helpers import MINIATURE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of 3 epochs."""
    folder = tmp_path_factory.mktemp("run")
    written = Curves(folder, 0)
    rows = (("warm_up", None), ("warm_up", 0.4), ("meta", 0.6))
    for epoch, (stage, accuracy) in enumerate(rows, start=1):
        written.add({"epoch": epoch, "stage": stage, "loss": 1.5 / epoch, "validation_accuracy": accuracy})
    written.close()
    parameters = initial_parameters(MINIATURE, 0)
    for epoch in (0, 40):
        keep_phi(folder, epoch, {name: value * (1 + epoch) for name, value in parameters.phi.items()})
    write(MetaModel(parameters, {"config": MINIATURE.to_json()}), folder)
    return folder


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ("curves", ["warm-up", "meta-training", "60.0 %"]),
        ("genotype", ["normal cell", "reduction cell", "node 0", "sep conv 3x3"]),
        (
            "loss-landscape",
            [
                "learned loss, after 0 meta-epochs",
                "learned loss, after 40 meta-epochs",
                "cross-entropy",
                "1st principal direction of the logits",
            ],
        ),
    ],
)
def test_a_plot_is_written_as_png_and_svg(run: Path, tmp_path: Path, picture: str, said: list[str]) -> None:
    assert main(["plot", picture, str(run), "--to", str(tmp_path)]) == 0
    with Image.open(tmp_path / f"{picture}.png") as image:
        assert min(image.size) > 400
    root = ElementTree.parse(tmp_path / f"{picture}.svg").getroot()  # noqa: S314 - our own file
    text = " ".join("".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text"))
    assert [words for words in said if words not in text] == []


def test_a_landscape_is_plotted_at_the_requested_epochs_and_missing_ones_are_reported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plot", "loss-landscape", str(run), "--to", str(tmp_path), "--epochs"]
    assert main([*command, "40"]) == 0
    drawn = (tmp_path / "loss-landscape.svg").read_text("utf-8")
    assert "after 40 meta-epochs" in drawn
    assert "after 0 meta-epochs" not in drawn
    assert main([*command, "0,7,40,9"]) == 1
    assert "no snapshot of the loss after meta-epoch 7, 9; available: 0, 40" in capsys.readouterr().err
    assert main(["plot", "loss-landscape", "--epochs", "0"]) == 1
    assert "--epochs needs the folder of a run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*command, "last"])


def test_plots_are_written_to_the_run_folder_by_default(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "curves", str(run)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(run / "plots" / f"curves.{end}") for end in ("png", "svg")]


def test_a_folder_without_a_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", "curves", str(tmp_path)]) == 1
    assert "this run has not completed an epoch yet" in capsys.readouterr().err
    assert main(["plot", "genotype", str(tmp_path)]) == 1
    assert "neither a model nor a checkpoint" in capsys.readouterr().err


def test_the_running_mean_by_hand() -> None:
    assert curves.running_mean([4.0, 2.0, 0.0, 7.0], 2) == [4.0, 3.0, 1.0, 3.5]
    assert curves.running_mean([4.0, 2.0], 1) == [4.0, 2.0]


def test_neither_a_single_easy_epoch_nor_validation_noise_sets_the_scale() -> None:
    rows = [
        {"epoch": i, "stage": "meta", "loss": 1e-9 if i == 30 else 0.5, "validation_accuracy": 0.985 - 0.0001 * (i % 2)}
        for i in range(1, 61)
    ]
    above, below = curves.draw(rows).axes
    assert above.get_ylim()[0] > 0.01
    low, high = below.get_ylim()
    assert high - low > 2


def test_an_epoch_without_a_loss_is_left_out_of_the_curve() -> None:
    rows = [
        {"epoch": i, "stage": "meta", "loss": None if i in (1, 3) else 0.5, "validation_accuracy": None}
        for i in range(1, 5)
    ]
    dots, *_ = curves.draw(rows).axes[0].lines
    assert np.array_equal(dots.get_xydata(), [[2, 0.5], [4, 0.5]])
    with pytest.raises(ValueError, match="no epoch with a loss"):
        curves.draw(rows[:1])


def test_each_operation_has_its_own_colour() -> None:
    assert genotype.OPERATIONS.keys() == OPERATIONS.keys()
    assert len(set(genotype.OPERATIONS.values())) == len(genotype.OPERATIONS)


def test_the_centre_of_a_surface_is_the_loss_of_the_support_set() -> None:
    learner, parameters = TaskLearner.build(MINIATURE), initial_parameters(MINIATURE, 0)
    labels = torch.arange(5).repeat_interleave(3)
    images = torch.rand(15, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = loss_landscape(learner, parameters, {"now": parameters.phi}, images, labels, 5, points=5)
    features, _ = learner.embed(parameters.theta, parameters.alpha, images)
    logits = leave_one_out_logits(features, labels, 5, parameters.log_scale.exp())  # the miniature's logit_scale is 1
    assert found.entropy[2, 2] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)
    learned = functional_call(learner.loss, parameters.phi, (logits, labels, 0.0, None))[0]
    assert found.learned["now"][2, 2] == pytest.approx(float(learned), rel=1e-4)
    assert found.entropy.shape == found.learned["now"].shape == (5, 5)
    assert 0 < found.explained[1] <= found.explained[0] <= 1


@pytest.mark.parametrize("seed", range(4))
def test_a_surface_falls_to_the_right_and_upwards_towards_the_true_class(seed: int) -> None:
    learner, parameters = TaskLearner.build(MINIATURE), initial_parameters(MINIATURE, seed)
    labels = torch.arange(5).repeat_interleave(3)
    images = torch.rand(15, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    found = loss_landscape(learner, parameters, {}, images, labels, 5, points=5)
    middle = found.entropy[2]
    assert found.a[0] < 0 < found.a[-1]
    assert bool((middle[1:] < middle[:-1]).all())
    assert found.entropy[-1, 2] < found.entropy[0, 2]


def test_the_support_set_of_a_surface_has_validation_classes_or_generated_glyphs(tmp_path: Path) -> None:
    spec = MINIATURE.network.image
    write_folders(tmp_path / "data", classes=20, images=4, seed=5)
    images, labels, ways = support_set(spec, tmp_path / "data", None, 3, 2, seed=0)
    known = to_float(load_dataset(tmp_path / "data", spec)["val"].images)
    assert (ways, labels.tolist()) == (3, [0, 0, 1, 1, 2, 2])
    assert all(any(torch.equal(image, other) for other in known) for image in images)
    generated, _, _ = support_set(spec, None, None, 3, 2, seed=0)
    assert generated.shape == images.shape
    assert not any(torch.equal(image, other) for image in generated for other in known)


def test_generated_photos_differ_in_their_background() -> None:
    for drawings in (True, False):
        spec = ImageSpec(normalise_polarity=drawings)
        corners = support_set(spec, None, None, 3, 2, seed=0)[0][:, 0, 0, 0]
        assert (len(set(corners.tolist())) == 1) is drawings


def test_a_surface_extends_to_one_and_a_half_times_the_margin() -> None:
    """With a margin of 8 for the true class the extent is 12; without a margin it depends on the size of the logits."""
    labels = torch.arange(3)
    assert _plane(8 * torch.eye(3), labels)[2] == pytest.approx(12)
    behind = torch.tensor([[0.0, 0.0, 6.0]] * 2)
    assert _plane(behind, torch.tensor([0, 1]))[2] == pytest.approx(9)
