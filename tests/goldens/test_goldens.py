"""Golden results are reproduced: bit for bit or to 1e-6 on the kind of machine that recorded them, and approximately on
others, whose instruction sets round differently.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lamanas_core.meta_model import MetaModel, shipped
from tests.goldens.episodes import SHOTS, result
from tests.goldens.machine import machine
from tests.goldens.record import FOLDER, slug
from tests.goldens.trainings import RUNS, STOPS, digest, weights, write_data

GOLDENS: dict[str, Any] = json.loads((FOLDER / "goldens.json").read_text())
SAME_MACHINE = GOLDENS["machine"] == machine()
# Relative to the largest value. The K inner steps amplify differences in rounding.
TOLERANCE = 1e-6 if SAME_MACHINE else 1e-2
# The tolerance between the artifact and the network that it was exported from.
ARTIFACT = 1e-4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def model() -> MetaModel:
    return MetaModel.from_bytes(*shipped())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


def operations(genotype: dict[str, Any]) -> list[Any]:
    """The kept operations of every edge, without their weights."""
    return [
        [[(edge["source"], [o["name"] for o in edge["operations"]]) for edge in node["inputs"]] for node in cell]
        for cell in (genotype["normal"], genotype["reduction"])
    ]


def numbers(document: Any) -> list[float]:
    """All numbers in a JSON document, in order."""
    if isinstance(document, dict):
        return [number for value in document.values() for number in numbers(value)]
    if isinstance(document, list):
        return [number for value in document for number in numbers(value)]
    return [float(document)] if isinstance(document, int | float) else []


@pytest.mark.parametrize("name", SHOTS)
def test_an_episode_of_the_shipped_model_gives_the_stored_classifier(model: MetaModel, name: str) -> None:
    assert model.version == GOLDENS["version"]
    found, stored = result(model, name), GOLDENS["episodes"][name]
    summary = json.loads(json.dumps(found.summary))
    with np.load(FOLDER / "logits.npz") as arrays:
        logits = arrays[slug(name)]
    scale = np.abs(logits).max()
    assert np.abs(found.logits - logits).max() <= TOLERANCE * scale
    assert np.abs(found.network_logits - logits).max() <= max(TOLERANCE, ARTIFACT) * scale
    assert operations(summary["genotype"]) == operations(stored["genotype"])
    np.testing.assert_allclose(numbers(summary), numbers(stored), rtol=TOLERANCE, atol=TOLERANCE)
    for exact in ("parameters_kept", "leave_one_out_accuracy", "support_accuracy", "warnings"):
        assert summary[exact] == stored[exact]


@pytest.fixture(scope="module")
def uninterrupted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Tensor]]:
    """The final weights of a training that was not interrupted; each is run once."""
    return cache(lambda name: weights(name, data, tmp_path_factory.mktemp("uninterrupted")))


@pytest.mark.parametrize("name", RUNS)
def test_a_training_ends_with_the_stored_weights(uninterrupted: Callable[[str], dict[str, Tensor]], name: str) -> None:
    final = uninterrupted(name)
    if SAME_MACHINE:
        assert digest(final) == GOLDENS["trainings"][name]
    for entry, value in load_file(FOLDER / f"{slug(name)}.safetensors").items():
        torch.testing.assert_close(final[entry], value, rtol=0.0, atol=0.05, msg=entry)


@pytest.mark.parametrize("name", RUNS)
def test_an_interrupted_training_ends_with_the_bits_of_an_uninterrupted_one(
    data: Path, tmp_path: Path, uninterrupted: Callable[[str], dict[str, Tensor]], name: str
) -> None:
    assert digest(weights(name, data, tmp_path, STOPS[name])) == digest(uninterrupted(name))
