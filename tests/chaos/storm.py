"""What is done to an installation while clients use it. All of it runs in the main thread."""

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
TRIES = 3
# A machine on which a worker takes long to start gets on all the same.
A_FEW = 10


@dataclass
class Storm:
    installation: Installation
    say: Callable[[str], None]
    _next: int = 0

    def worker(self) -> None:
        """SIGKILL to an adapt worker, another one each time, once it has done a few episodes since it was started."""
        part = self.installation.adapters[self._next % len(self.installation.adapters)]
        self._next += 1
        until(lambda: part.said(" ready in ") >= A_FEW, f"{part.name} finished {A_FEW} episodes")
        self.until_spared()
        self.kill(part)

    def app(self) -> None:
        self.kill(self.installation.app)
        until(self.installation.ready, "the app is ready again")

    def redis(self) -> None:
        self.kill(self.installation.redis)
        until(self.installation.answers_redis, "Redis answers again")

    def before_commit(self) -> None:
        """A worker dies with its classifier made and not written."""
        pid, id = self._held("adapted")
        self.kill(self.installation.holder(pid), f"before it wrote the classifier of {id}")

    def after_commit(self) -> None:
        """A worker dies with its classifier written; the broker delivers the message of that episode once more."""
        pid, id = self._held("committed")
        self.kill(self.installation.holder(pid), f"after it wrote the classifier of {id}, before it told anybody")
        celery = celery_app(self.installation.settings)
        wake(celery, "episode", id)
        celery.close()

    def thought_dead(self) -> None:
        """A worker stands still until another one has done its work, and then comes back with its result."""
        pid, id = self._held("adapted")
        part = self.installation.holder(pid)
        with self.installation.client() as client:
            until(lambda: client.get(f"/episodes/{id}").json()["state"] == "ready", f"another worker finished {id}")
        os.kill(pid, signal.SIGCONT)
        refused = f"episode {id}: the claim was no longer valid when the result was ready"
        until(lambda: part.said(refused), f"the late result of {id} was refused")
        self.say(f"{part.name} stood still past its lease; its late result was refused")

    def poison(self) -> None:
        """An episode that kills the worker each time it is tried."""
        for part in self.installation.adapters:
            part.signal_all(signal.SIGSTOP)  # until its id is known
        with self.installation.client() as client:
            answer = client.post("/episodes", json=support_json(POISON.files()[0], name="poison"))
            assert answer.status_code == 202, answer.text
            id = answer.json()["id"]
            self._arm("adapted", id)
            for part in self.installation.adapters:
                part.signal_all(signal.SIGCONT)
            for attempt in range(1, TRIES + 1):
                pid, _ = self._taken("adapted")
                if attempt < TRIES:
                    self._arm("adapted", id)
                self.kill(self.installation.holder(pid), f"by poison, try {attempt}")
            episode = until_ended(client, id)
        assert episode is not None
        assert episode["state"] == "failed", f"the poison ended {episode['state']}"
        self.say(f"the poison is failed after {TRIES} tries: {episode['error']}")

    def rolling_restart(self) -> None:
        """SIGTERM to one part after the other, each started again before the next."""
        for part in self.installation.parts:
            if part.process is None:
                continue
            code = part.terminate()
            assert code == 0, f"{part.name} ended with {code} after SIGTERM"
            part.start()
            self.say(f"{part.name} was terminated, drained and started again")
            until(self.installation.ready, f"ready after the restart of {part.name}")

    def kill(self, part: Part, why: str = "") -> None:
        part.kill()
        part.start()
        self.say(f"{part.name} was killed {why}".rstrip())

    def _arm(self, point: Point, id: str = "") -> None:
        draft = self.installation.faults / "arming"
        draft.write_text(id)
        draft.rename(self.installation.faults / point)

    def until_spared(self) -> None:
        """Whoever lost its worker three times counts as poison: nobody is hit a third time by us."""
        redis = self.installation.redis_client
        queued, leased = keys.queued("episode"), keys.leases("episode")

        def tries(ids: str) -> list[int]:
            return [self._tries(id.decode()) for id in redis.zrange(ids, 0, -1)]

        until(
            lambda: max(tries(queued), default=0) < TRIES - 1 and max(tries(leased), default=0) < TRIES, "the unlucky"
        )

    def _tries(self, id: str) -> int:
        return int(self.installation.redis_client.hget(keys.record("episode", id), "attempts") or 0)

    def _held(self, point: Point) -> tuple[int, str]:
        """Arms the point for any episode; the process held there and the episode's id."""
        while True:
            self._arm(point)
            pid, id = self._taken(point)
            if self._tries(id) < TRIES:
                return pid, id
            os.kill(pid, signal.SIGCONT)

    def _taken(self, point: Point) -> tuple[int, str]:
        held = self.installation.faults / f"{point}.stopped"
        until(held.exists, f"a worker reaches {point!r}")
        pid, id = held.read_text().split()
        held.unlink()
        return int(pid), id
