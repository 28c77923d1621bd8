"""What comes from outside and means harm: a small part of ``make hostile`` and ``make fuzz``, and foreign weights."""

import io
import json
import pickle
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from tests.app.test_pool import slow_jpeg
from tests.conftest import ROOT
from tests.hostile import corpus
from tests.hostile.attack import MOST_BYTES, attack
from tests.hostile.corpus import Hostile
from tests.hostile.fuzz import fuzz
from tests.hostile.serving import Target, serving

# Enough of each kind for a look; `make hostile` sends all.
EVERY = 17
UNPICKLING = ("import pickle", "from pickle", "import dill", "import shelve", "import marshal", "cloudpickle", "joblib")
LOADING = ("torch.load(", "allow_pickle=True", "weights_only=False", "yaml.load(", "eval(compile", "exec(")


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with serving() as target:
        yield target


@pytest.fixture(scope="module")
def files() -> tuple[list[Hostile], list[Hostile]]:
    """Images and archives, made once."""
    return list(corpus.images()), list(corpus.archives())


def test_there_are_hundreds_of_files_no_two_alike(files: tuple[list[Hostile], list[Hostile]]) -> None:
    assert len({file.data for file in chain(*files)}) >= 500


def test_hostile_files_are_refused_and_the_service_goes_on(
    target: Target, files: tuple[list[Hostile], list[Hostile]]
) -> None:
    images, archives = files
    slow = slow_jpeg()
    quick = [file for file in images if file.data != slow]
    tally = attack(target, quick[::EVERY], archives[:: 2 * EVERY])
    assert tally.wrong == []
    assert tally.refused > tally.taken > 0
    assert target.peak_bytes() < MOST_BYTES


def test_the_description_holds_under_a_few_made_up_requests(target: Target) -> None:
    phases = ("--phases", "examples,fuzzing", "--max-examples", "2", "--seed", "1")
    outcome = fuzz(target, *phases, "--generation-deterministic")
    assert outcome.failed == 0, outcome.report


# ---------------------------------------------------------------------- foreign code


def sources() -> Iterator[Path]:
    for package in ("app", "cli", "lamanas_client", "lamanas_core", "workers"):
        yield from (ROOT / package).rglob("*.py")


def test_nothing_here_reads_foreign_code() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in sources()
        for word in (*UNPICKLING, *LOADING)
        if word in path.read_text()
    ]
    # The published weights of the backbone, read once, by whoever makes its file; test_lite0 tries a harmful one.
    assert found == ["lamanas_core/backbones/lite0.py: torch.load("]
    assert "torch.load(path, weights_only=True)" in (ROOT / "lamanas_core/backbones/lite0.py").read_text()


class Boom:
    """Unpickled, it would leave a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def zipped_checkpoint(path: Path) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"theta": Boom(path)}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("make", [lambda path: pickle.dumps(Boom(path)), zipped_checkpoint])
def test_a_checkpoint_that_is_code_is_refused_and_not_run(make: object, tmp_path: Path) -> None:
    from lamanas_core.meta_model import MetaModel, MetaModelError, read, shipped

    assert callable(make)
    mark = tmp_path / "ran"
    hostile = make(mark)
    _, card = shipped()
    (tmp_path / "model.safetensors").write_bytes(hostile)
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(MetaModelError, match="not a meta-model"):
        read(tmp_path)
    with pytest.raises(MetaModelError, match="not a meta-model"):
        MetaModel.from_bytes(hostile, card)
    assert not mark.exists()
