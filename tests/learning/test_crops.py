"""Crops: what they show, how many there are, and that the head is fitted to them."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lamanas_core.adapt.adapted import AdaptedNetwork, adapt, logits_before
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.artifact import Classifier
from lamanas_core.config import PRESETS, Calibration, Config
from lamanas_core.data.crops import MOST_IN_ALL, cropped, crops_of_each
from lamanas_core.data.folders import ImageClasses
from lamanas_core.data.maps import with_inputs
from lamanas_core.heads.base import Support, Tensors
from lamanas_core.heads.gaussian import FittedGaussian, GaussianHead
from lamanas_core.image_spec import UNLABELLED
from lamanas_core.measure.calibrate import calibrated
from lamanas_core.measure.evaluate import EvaluationConfig
from lamanas_core.meta_model import MetaModel, shipped
from lamanas_core.recipe import CalibrationEpisodes

PHOTOS = PRESETS["photos"]


def photos(count: int) -> Tensor:
    """Smooth noise, uint8 (``count``, 3, 224, 224)."""
    rough = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    return (255 * torch.nn.functional.interpolate(rough, size=(224, 224), mode="bilinear")).byte()


def test_crops_show_the_middle_and_two_opposite_corners_at_the_size_of_the_image() -> None:
    """In an image whose values rise to the right and down, a crop's mean tells where it is."""
    along = torch.arange(224.0)
    images = torch.stack([along.expand(224, 224), along[:, None].expand(224, 224)])[None].byte()
    found = cropped(images, 3).float()
    assert found.shape == (1, 3, 2, 224, 224)
    for crop, first in zip(found[0], (28, 0, 56), strict=True):  # a crop has 168 pixels a side
        assert crop.mean((1, 2)).tolist() == pytest.approx([first + 83.5] * 2, abs=0.5)
        assert crop.amin((1, 2)).tolist() == pytest.approx([first] * 2, abs=1)
        assert crop.amax((1, 2)).tolist() == pytest.approx([first + 167] * 2, abs=1)
    assert torch.equal(cropped(images, 1), cropped(images, 3)[:, :1])


@pytest.mark.parametrize("count", [0, 4])
def test_there_are_no_other_crops(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} crops of an image; there are 1 to 3"):
        cropped(photos(1), count)


def test_the_more_images_the_fewer_crops_of_each() -> None:
    found = {images: crops_of_each(images, 3) for images in (1, 33, 34, 50, 51, 100, 101, 2000)}
    assert found == {1: 3, 33: 3, 34: 2, 50: 2, 51: 1, 100: 1, 101: 0, 2000: 0}
    assert max(images * crops_of_each(images, 3) for images in range(1, 200)) == MOST_IN_ALL


def model(crops: int, parameters: Parameters | None = None) -> MetaModel:
    config = Config("photos", replace(PHOTOS.network, crops=crops), PHOTOS.task_learner)
    parameters = initial_parameters(config, 0) if parameters is None else parameters
    return MetaModel(parameters, {"config": config.to_json()})


def fitted(to: MetaModel, images: Tensor, labels: Tensor | None = None) -> AdaptedNetwork:
    given = torch.arange(len(images)) % 2 if labels is None else labels
    return adapt(
        to,
        images.numpy(),
        given.numpy(),
        ["a", "b"],
        steps=0,
        seed=0,
        device="cpu",
        on_step=lambda *_: None,
        judged=False,
    ).network


def maps_of(images: Tensor) -> Tensor:
    network = model(3).learner.network
    return with_inputs(ImageClasses(images, (torch.arange(len(images)),), ("a",), ("",)), network).images


def test_the_head_is_fitted_to_crops_whether_images_are_given_or_their_maps() -> None:
    images = photos(6)
    of_images, of_maps = (fitted(model(3), given).head.weight for given in (images, maps_of(images)))
    # Stored with 8 bits, in steps of less than a hundredth of the largest.
    torch.testing.assert_close(of_maps, of_images, rtol=0, atol=0.01 * float(of_images.abs().max()))
    without = fitted(model(0), images).head.weight
    assert float((without - of_images).abs().max()) > 0.05 * float(of_images.abs().max())


def test_the_crops_of_many_images_are_the_first_ones_of_each() -> None:
    maps = maps_of(photos(2)).repeat(30, 1, 1)
    found = fitted(model(3), maps).head.weight
    assert torch.equal(found, fitted(model(1), maps).head.weight)
    assert torch.equal(found, fitted(model(3), maps[:, :2]).head.weight)
    assert not torch.equal(found, fitted(model(0), maps).head.weight)
    assert not torch.equal(found, fitted(model(3), maps[:, [0, 2]]).head.weight)


def test_an_image_alone_is_judged_not_its_crops() -> None:
    maps = maps_of(photos(6))
    network = fitted(model(3), maps)
    artifact = Classifier.from_bytes(network.artifact(["a", "b"], "version"))
    assert np.array_equal(artifact.logits(maps.numpy()), artifact.logits(maps[:, 0].numpy()))
    torch.testing.assert_close(network.logits(maps), network.logits(maps[:, 0]))


def test_crops_that_are_missing_are_told() -> None:
    maps = maps_of(photos(6))
    for given in (maps[:, :3], maps[:, :1], maps[:, 0]):
        with pytest.raises(
            ValueError, match=r"inputs of shape \(6, .*; needed are those of each image and 3 crops of it"
        ):
            fitted(model(3), given)


def test_a_network_without_a_backbone_has_no_crops() -> None:
    config = Config("tiny", replace(PRESETS["tiny"].network, crops=3), PRESETS["tiny"].task_learner)
    tiny = MetaModel(initial_parameters(config, 0), {"config": config.to_json()})
    assert fitted(tiny, torch.zeros(4, 1, 28, 28, dtype=torch.uint8)).support.features.shape[0] == 4


def test_maps_are_of_as_many_crops_as_the_smallest_support_set_needs() -> None:
    classes = ImageClasses(photos(2), (torch.arange(2),), ("a",), ("",))
    rows = {fewest: with_inputs(classes, model(3).learner.network, fewest).images.shape[1] for fewest in (1, 40, 101)}
    assert rows == {1: 4, 40: 3, 101: 1}
    assert EvaluationConfig(ways=20, shots=5).fewest == 100
    assert EvaluationConfig(ways=20, shots=5, uneven=True).fewest == 20


WITH, WITHOUT = (2.0, 0.5), (3.0, -0.2)  # temperature and spread


def calibrated_differently() -> MetaModel:
    plain = model(3)
    config = replace(plain.config, calibration=Calibration(WITH[0], None, WITH[1], without_crops=WITHOUT))
    return MetaModel(plain.parameters, {"config": config.to_json()})


@pytest.mark.parametrize(("images", "expected"), [(100, WITH), (102, WITHOUT)])
def test_the_temperature_is_that_of_heads_with_crops_where_there_are_any(
    images: int, expected: tuple[float, float]
) -> None:
    maps = maps_of(photos(2)).repeat(images // 2, 1, 1)
    found, plain = (fitted(of, maps).head.weight for of in (calibrated_differently(), model(3)))
    temperature = expected[0] * (1 + 2 / images) ** expected[1]
    torch.testing.assert_close(found, plain / temperature, rtol=0, atol=0.01 * float(found.abs().max()))
    assert max(WITH[0], WITHOUT[0]) > 1.2 * min(WITH[0], WITHOUT[0])


def test_labels_are_doubted_at_the_temperature_of_heads_without_crops() -> None:
    """The logits that leave out an image are without crops: of the same support set, they are those of both models."""
    images, labels = maps_of(photos(4))[:, 0].float(), torch.tensor([0, 0, 1, 1])
    found, plain = (
        logits_before(of.learner, of.parameters, images, labels, 2, None) for of in (calibrated_differently(), model(3))
    )
    torch.testing.assert_close(found, plain / (3.0 * 1.5**-0.2))


def test_calibration_finds_both_temperatures() -> None:
    """Without crops it is that of a model that never had any."""
    images = (0.2 * photos(3).repeat_interleave(4, dim=0) + 0.8 * photos(15)[3:]).byte()  # hard to tell apart
    classes = ImageClasses(maps_of(images), tuple(torch.arange(12).view(3, 4)), ("a", "b", "c"), ("",) * 3)
    recipe = CalibrationEpisodes(episodes=6, ways=2, shots=2, queries=2, novelty_shots=(1,))
    trained = MetaModel.from_bytes(*shipped("photos")).parameters
    with_crops, without = (calibrated(model(crops, trained), classes, 0, recipe).config.calibration for crops in (3, 0))
    assert with_crops.without_crops == (without.temperature, without.temperature_spread)
    assert without.without_crops is None
    assert with_crops.temperature != without.temperature
    assert Calibration.from_json(json.loads(json.dumps(asdict(with_crops)))) == with_crops


def test_of_images_without_a_label_no_crops_are_used() -> None:
    maps = maps_of(photos(6))
    labels = torch.tensor([0, 1, 0, 1, UNLABELLED, UNLABELLED])
    found = fitted(model(3), maps, labels).head.weight
    other = maps.clone()
    other[4:, 1:] = 0
    assert torch.equal(found, fitted(model(3), other, labels).head.weight)


def test_both_heads_are_fitted_to_crops_where_images_have_no_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that unlabelled images are shared by, and the one that is fitted to their shares."""
    fit, given = GaussianHead.fit, list[tuple[bool, tuple[int, ...]]]()

    def noted(head: GaussianHead, theta: Tensors, support: Support, scale: Tensor) -> FittedGaussian:
        assert support.crops is not None
        given.append((support.unlabelled is not None, tuple(support.crops.shape)))
        return fit(head, theta, support, scale)

    monkeypatch.setattr(GaussianHead, "fit", noted)
    fitted(model(3), maps_of(photos(6)), torch.tensor([0, 1, 0, 1, UNLABELLED, UNLABELLED]))
    assert given == [(False, (4, 3, 2144)), (True, (4, 3, 2144))]
