"""Short runs of ``make load``, ``make chaos`` and ``make soak`` on one installation."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.chaos import load, soak
from tests.chaos.clients import Clients, Job
from tests.chaos.installation import Installation, installed
from tests.chaos.storm import Storm
from tests.chaos.verdict import reach_verdict
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def installation() -> Iterator[Installation]:
    folder = Path(tempfile.mkdtemp(prefix="lam-"))
    with installed(folder, trainer=False, LAMANAS_MAX_QUEUE="5") as installation:
        yield installation
    shutil.rmtree(folder, ignore_errors=True)


def test_overload_is_refused_and_accepted_episodes_become_ready(
    installation: Installation, capsys: pytest.CaptureFixture[str]
) -> None:
    assert load.passes(installation, 40.0, 3.0, print), capsys.readouterr().out


def test_no_accepted_episode_is_lost_doubled_or_different_after_kills(installation: Installation) -> None:
    storm = Storm(installation, print)
    clients = Clients(installation, map(Job, (number for number in count() if number % 10 in (0, 1, 6))), count=2)
    clients.start()
    storm.before_commit()
    storm.after_commit()
    storm.app()
    storm.redis()
    ledger = clients.finish()
    verdict = reach_verdict(installation, ledger)
    assert verdict.holds, verdict
    kinds = [Job(int(name.rpartition(" ")[2])).kind for name in ledger.accepted]
    assert verdict.photos == kinds.count("photos")


def test_recurring_tasks_are_adapted_as_before_while_each_part_is_killed(installation: Installation) -> None:
    verdict, grown = soak.soak(installation, 2.0, print, seconds=8.0, every_s=2.0, settled_s=2.0)
    assert verdict.holds, verdict
    assert grown.keys() == {installation.adapters[-1].name}  # the only part that no kill has reached


def test_make_targets_in_the_operations_page_exist() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)`", page))
    assert {"chaos", "load"} <= named <= targets
