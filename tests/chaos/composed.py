"""``python -m tests.chaos.composed docker compose -f docker-compose.yml -f docker-compose.scale.yml``: clients of a
running compose project, while one container of each service is killed.

The arguments are the command that reaches the project, which must have been started with docker-compose.scale.yml. The
last line is the verdict. The exit code is 0 only if no accepted episode was lost, doubled or different.
"""

import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from itertools import count
from pathlib import Path

import httpx

from tests.chaos.clients import Clients, Job
from tests.chaos.installation import START_S, commits_in
from tests.chaos.verdict import reach_verdict
from tests.chaos.waiting import until

URL = "https://localhost"
SERVICES = ("app", "adapt", "caddy", "redis", "train")
EPISODES = 60
BETWEEN = 6  # episodes that are accepted before each kill


class Project:
    """A running compose project, reached through its proxy."""

    def __init__(self, compose: Sequence[str], folder: Path) -> None:
        self._compose = compose
        self._folder = folder
        self._token = self._asked("exec", "-T", "app", "lamanas", "token")
        certificate = folder / "root.crt"
        self._asked("cp", "caddy:/certificates/caddy/pki/authorities/local/root.crt", str(certificate))
        self._trusted = ssl.create_default_context(cafile=certificate)

    def client(self) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self._token}"}
        return httpx.Client(base_url=URL, headers=headers, verify=self._trusted, timeout=30.0, trust_env=False)

    def commits(self) -> Counter[str]:
        files = self._folder / "redis"
        self._asked("cp", "redis:/data/appendonlydir", str(files))
        return commits_in(files)

    def kill(self, service: str) -> str:
        """Kills all processes of one container of this service and starts it again; returns its name."""
        container = self._asked("ps", "--quiet", service).split()[0]
        for command in ("kill", "start"):
            self._docker(command, container)
        return self._docker("inspect", "--format", "{{.Name}}", container).removeprefix("/")

    def until_healthy(self) -> None:
        """Waits until every container is as its health check wants it."""
        until(lambda: set(self._asked("ps", "--format", "{{.Health}}").split()) == {"healthy"}, "all healthy", START_S)

    def _asked(self, *arguments: str) -> str:
        return _output([*self._compose, *arguments])

    def _docker(self, *arguments: str) -> str:
        return _output([self._compose[0], *arguments])


def _output(command: Sequence[str]) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def main(compose: Sequence[str]) -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="lam-composed-") as folder:
        project = Project(compose, Path(folder))
        clients = Clients(project, map(Job, count()))
        clients.start()
        for service in SERVICES:
            before = len(clients.ledger)
            until(lambda before=before: len(clients.ledger) >= before + BETWEEN, "clients go on")  # type: ignore[misc]
            print(f"[{time.monotonic() - started:4.0f} s] {project.kill(service)} was killed", flush=True)
        until(lambda: len(clients.ledger) >= EPISODES, f"{EPISODES} episodes were accepted")
        ledger = clients.finish()
        project.until_healthy()
        verdict = reach_verdict(project, ledger)
        print(f"{verdict.unanswered} requests received no 202; {len(verdict.half)} of their episodes are incomplete")
        print(f"composed: {verdict}", flush=True)
        if not verdict.holds:
            print(verdict.__dict__, file=sys.stderr)
        return 0 if verdict.holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
