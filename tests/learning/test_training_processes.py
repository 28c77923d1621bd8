"""A training killed at any moment resumes to the same bits; several processes train the same model as one."""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lamanas_core.data.sources.glyphs import write_folders
from lamanas_core.meta_model import MetaModel, read
from lamanas_core.train import checkpoint
from lamanas_core.train.distributed import Ranks
from lamanas_core.train.run_folder import kept_phi, read_curves
from tests.conftest import ROOT, free_port
from tests.learning.training_process import OPTIONS, TASK_STARTED, run, run_as

Start = Callable[..., multiprocessing.process.BaseProcess]
EPOCHS = OPTIONS["warm_up_epochs"] + OPTIONS["meta_epochs"]


@pytest.fixture(scope="module")
def start() -> Start:
    """Start a training in its own process, forked from one that has already imported torch."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.learning.training_process"])

    def started(*arguments: object, target: Callable[..., None] = run) -> multiprocessing.process.BaseProcess:
        process = context.Process(target=target, args=arguments)
        process.start()
        return process

    return started


@pytest.fixture(scope="module")
def glyphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("glyphs")
    write_folders(folder, classes=8, images=3, seed=0)
    return folder


@pytest.fixture(scope="module")
def uninterrupted(start: Start, glyphs: Path, tmp_path_factory: pytest.TempPathFactory) -> MetaModel:
    """The model of a single process that was not killed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = start(glyphs, folder)
    process.join()
    assert process.exitcode == 0
    return read(folder)


def finish(start: Start, glyphs: Path, folder: Path) -> bytes:
    """The weights of a training that resumes from the files in ``folder``."""
    process = start(glyphs, folder)
    process.join()
    assert process.exitcode == 0
    return (folder / "model.safetensors").read_bytes()


def test_kills_at_arbitrary_moments_do_not_change_a_bit(
    start: Start, glyphs: Path, tmp_path: Path, uninterrupted: MetaModel
) -> None:
    for tasks in (6, 7, 4):
        receiver, sender = multiprocessing.Pipe(duplex=False)
        process = start(glyphs, tmp_path, sender.send_bytes)
        for _ in range(tasks):
            receiver.recv_bytes()
        process.kill()  # at an arbitrary point of its work
        process.join()
        assert process.exitcode == -signal.SIGKILL
        checkpoint.load(tmp_path)  # complete, if there is one
    assert finish(start, glyphs, tmp_path) == uninterrupted.to_bytes()
    assert [row["epoch"] for row in read_curves(tmp_path)] == list(range(1, EPOCHS + 1))
    assert list(kept_phi(tmp_path)) == [0, 1, 2]


@pytest.mark.parametrize("number", [1, 3])
def test_a_kill_in_the_middle_of_writing_leaves_the_previous_checkpoint(
    start: Start, glyphs: Path, tmp_path: Path, uninterrupted: MetaModel, number: int
) -> None:
    process = start(glyphs, tmp_path, None, number)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    previous = checkpoint.load(tmp_path)
    assert (0 if previous is None else previous[1]["epoch"]) == number - 1
    assert finish(start, glyphs, tmp_path) == uninterrupted.to_bytes()


def test_two_processes_of_torchrun_give_the_same_theta_alpha_and_phi_as_one(
    glyphs: Path, tmp_path: Path, uninterrupted: MetaModel
) -> None:
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    subprocess.run(
        [*torchrun, "-m", "tests.learning.training_process", str(glyphs), str(tmp_path / "run")],
        env=os.environ | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        check=True,
    )
    # Each process has one of the 2 tasks per warm-up step; rank 0 has two of the 3 tasks per meta-epoch.
    steps, epochs = OPTIONS["warm_up_epochs"] * 2, OPTIONS["meta_epochs"]
    done = [(tmp_path / f"tasks-{rank}").read_bytes() for rank in (0, 1)]
    assert done == [TASK_STARTED * (steps + 2 * epochs), TASK_STARTED * (steps + epochs)]
    assert_same(read(tmp_path / "run"), uninterrupted)


def test_two_processes_skip_the_same_tasks_as_one(start: Start, glyphs: Path, tmp_path: Path) -> None:
    port = free_port()
    sharing = [start(rank, 2, port, glyphs, tmp_path / "run", True, target=run_as) for rank in (0, 1)]
    for process in (start(glyphs, tmp_path / "one", None, None, True), *sharing):
        process.join()
        assert process.exitcode == 0
    one, both = read(tmp_path / "one"), read(tmp_path / "run")
    assert one.card["metrics"]["skipped_tasks"] == both.card["metrics"]["skipped_tasks"] > 0
    assert all(bool(value.isfinite().all()) for value in one.parameters.named().values())
    assert_same(both, one)


def assert_same(model: MetaModel, expected: MetaModel) -> None:
    """Sums in another order may round differently."""
    named = model.parameters.named()
    for name, value in expected.parameters.named().items():
        torch.testing.assert_close(named[name], value, rtol=0, atol=1e-5, msg=name)


def test_every_task_is_computed_by_exactly_one_process() -> None:
    shares = [list(Ranks(rank, 3).mine(8)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]
