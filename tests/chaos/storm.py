"""The faults that are injected into an installation while clients use it. All run in the main thread."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from app.queue import celery_app, wake
from app.store import keys
from tests.chaos.clients import Job, until_ended
from tests.chaos.installation import Installation, Part
from tests.chaos.waiting import until
from tests.end_to_end.client import support_json
from workers.faults import Point

POISON = Job(1_000_000)
MAX_ATTEMPTS = 3
# Counting episodes instead of seconds allows for machines on which workers start slowly.
MIN_EPISODES = 10


@dataclass
class Storm:
    installation: Installation
    log: Callable[[str], None]
    _next: int = 0

    def worker(self) -> None:
        """Kills the adapt workers in turn, each after it has finished a few episodes since its start."""
        part = self.installation.adapters[self._next % len(self.installation.adapters)]
        self._next += 1
        until(lambda: part.logged(" ready in ") >= MIN_EPISODES, f"{part.name} finished {MIN_EPISODES} episodes")
        self.wait_for_attempts()
        self.kill(part)

    def app(self) -> None:
        self.kill(self.installation.apps[0])
        until(self.installation.ready, "the app is ready again")

    def redis(self) -> None:
        self.kill(self.installation.redis)
        until(self.installation.redis_responds, "Redis responds again")

    def before_commit(self) -> None:
        """Kills a worker that has computed a classifier, before it commits it."""
        pid, id = self._stopped_process("adapted")
        self.kill(self.installation.part_of(pid), f"before it committed the classifier of {id}")

    def after_commit(self) -> None:
        """Kills a worker that has committed a classifier; then the broker delivers the wake-up once more."""
        pid, id = self._stopped_process("committed")
        self.kill(self.installation.part_of(pid), f"just after it committed the classifier of {id}")
        celery = celery_app(self.installation.settings)
        wake(celery, "episode", id)
        celery.close()

    def suspended_worker(self) -> None:
        """Suspends a worker until another one has finished its episode, and then resumes it."""
        pid, id = self._stopped_process("adapted")
        part = self.installation.part_of(pid)
        with self.installation.client() as client:
            until(lambda: client.get(f"/episodes/{id}").json()["state"] == "ready", f"another worker finished {id}")
        os.kill(pid, signal.SIGCONT)
        refused = f"episode {id}: the claim was no longer valid when the result was ready"
        until(lambda: part.logged(refused), f"the late result of {id} was refused")
        self.log(f"{part.name} was suspended beyond its lease; its late result was refused")

    def poison(self) -> None:
        """Submits an episode that kills its worker in each attempt."""
        for part in self.installation.adapters:
            part.signal_all(signal.SIGSTOP)  # until the id of the episode is known
        with self.installation.client() as client:
            answer = client.post("/episodes", json=support_json(POISON.files()[0], name="poison"))
            assert answer.status_code == 202, answer.text
            id = answer.json()["id"]
            self._arm("adapted", id)
            for part in self.installation.adapters:
                part.signal_all(signal.SIGCONT)
            for attempt in range(1, MAX_ATTEMPTS + 1):
                pid, _ = self._wait_for_stop("adapted")
                if attempt < MAX_ATTEMPTS:
                    self._arm("adapted", id)
                self.kill(self.installation.part_of(pid), f"by poison, attempt {attempt}")
            episode = until_ended(client, id)
        assert episode is not None
        assert episode["state"] == "failed", f"the poison episode ended as {episode['state']}"
        self.log(f"the poison episode failed after {MAX_ATTEMPTS} attempts: {episode['error']}")

    def rolling_restart(self) -> None:
        """Terminates and restarts one part after another."""
        for part in self.installation.parts:
            if part.process is None:
                continue
            code = part.terminate()
            assert code == 0, f"{part.name} ended with {code} after SIGTERM"
            part.start()
            self.log(f"{part.name} was terminated, drained and restarted")
            until(self.installation.ready, f"ready after the restart of {part.name}")

    def kill(self, part: Part, why: str = "") -> None:
        part.kill()
        part.start()
        self.log(f"{part.name} was killed {why}".rstrip())

    def _arm(self, point: Point, id: str = "") -> None:
        draft = self.installation.faults / "arming"
        draft.write_text(id)
        draft.rename(self.installation.faults / point)

    def wait_for_attempts(self) -> None:
        """Waits until no episode would lose its last attempt by a kill: it would fail as if it were poison."""
        redis = self.installation.redis_client
        queued, leased = keys.queued("episode"), keys.leases("episode")

        def attempts(ids: str) -> list[int]:
            return [self._attempts(id.decode()) for id in redis.zrange(ids, 0, -1)]

        until(
            lambda: (
                max(attempts(queued), default=0) < MAX_ATTEMPTS - 1 and max(attempts(leased), default=0) < MAX_ATTEMPTS
            ),
            "episodes at their last attempt end",
        )

    def _attempts(self, id: str) -> int:
        return int(self.installation.redis_client.hget(keys.record("episode", id), "attempts") or 0)

    def _stopped_process(self, point: Point) -> tuple[int, str]:
        """Arms the point for any episode; returns the process that stopped there and the episode's id."""
        while True:
            self._arm(point)
            pid, id = self._wait_for_stop(point)
            if self._attempts(id) < MAX_ATTEMPTS:
                return pid, id
            os.kill(pid, signal.SIGCONT)

    def _wait_for_stop(self, point: Point) -> tuple[int, str]:
        stopped = self.installation.faults / f"{point}.stopped"
        until(stopped.exists, f"a worker reaches {point!r}")
        pid, id = stopped.read_text().split()
        stopped.unlink()
        return int(pid), id
