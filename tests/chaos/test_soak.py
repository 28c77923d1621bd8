"""What ``make soak`` concludes from what it has seen; a short run is in ``test_chaos``."""

import itertools

from tests.chaos.clients import Ledger
from tests.chaos.soak import TASKS, Audit, Recurring, growth, paced


def test_growth_is_that_of_the_process_of_a_part_that_grew_most() -> None:
    before = {("app", 1): 100, ("app", 2): 1000, ("adapt", 3): 100, ("redis", 4): 100}
    after = {("app", 1): 130, ("app", 2): 1000, ("adapt", 5): 900, ("redis", 4): 80}
    assert {name: round(share, 6) for name, share in growth(before, after).items()} == {"app": 0.3, "redis": -0.2}


def test_tasks_recur_and_episodes_do_not() -> None:
    first, again, other = Recurring(3), Recurring(3 + TASKS), Recurring(4)
    assert first.files() == again.files() != other.files()
    assert len({job.number for job in (first, again, other)}) == 3


def test_jobs_end_after_the_time_that_was_asked_for() -> None:
    jobs = paced(map(Recurring, itertools.count()), rate=1000, seconds=0.01)
    assert [job.number for job in jobs] == list(range(11))


def test_an_episode_without_its_classifier_or_with_two_is_found() -> None:
    audit = Audit({}, ready={"good", "twice", "other", "again"}, differing={"other"})
    ledger = Ledger()
    for name, id in (("1", "good"), ("2", "twice"), ("3", "other"), ("4", "lost"), ("5", "again"), ("5", "good")):
        ledger.accept(name, id)
    verdict = audit.verdict(ledger, {"good": 1, "twice": 2, "other": 1, "again": 1})
    assert (verdict.accepted, verdict.ready, verdict.holds) == (5, 4, False)
    assert (verdict.lost, verdict.doubled, verdict.differing) == (["lost"], ["twice", "5"], ["other"])
