"""A small run of ``make chaos``: the same code, one disturbance of each kind that takes little time."""

from itertools import count
from pathlib import Path

from tests.chaos.clients import Clients, Job
from tests.chaos.installation import installed
from tests.chaos.storm import Storm
from tests.chaos.verdict import reach_verdict


def test_nothing_accepted_is_lost_doubled_or_different_whatever_is_killed(short_folder: Path) -> None:
    with installed(short_folder, trainer=False) as installation:
        storm = Storm(installation, print)
        clients = Clients(installation, map(Job, count()), count=2)
        clients.start()
        storm.before_commit()
        storm.after_commit()
        storm.app()
        storm.redis()
        ledger = clients.finish()
        verdict = reach_verdict(installation, ledger, storm.poisoned)
        assert verdict.holds, verdict
