"""Measures an installation with many episodes: times of requests, memory, and what event streams cost."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.store import keys
from app.store.clients import SyncStore
from app.store.records import WorkerRecord, to_json
from tests.chaos.clients import Job
from tests.chaos.installation import Installation
from tests.end_to_end.client import predict
from tests.scale.streams import Streams

WORKERS = 50
REQUESTS = 200
WARM_UP = 20
ROUNDS = 5
STREAMS_S = 20.0
# About what two adapt workers report.
CHANGES_PER_S = 40
QUERY = Job(0).files()[1][:1]


@dataclass(frozen=True)
class Figures:
    """Milliseconds at the 99th percentile, the memory that Redis uses in MB (10^6 bytes), and per cent of a core."""

    episodes: int
    redis_mb: float
    readyz: float
    metrics: float
    list: float
    predict: float
    check: float
    streams_core: float
    streams_delay: float

    def __str__(self) -> str:
        return (
            f"scale: episodes {self.episodes}, redis {self.redis_mb:.0f} MB, readyz p99 {self.readyz:.1f} ms, "
            f"metrics p99 {self.metrics:.1f} ms, list p99 {self.list:.1f} ms, predict p99 {self.predict:.1f} ms, "
            f"check {self.check:.1f} ms, 1000 streams {self.streams_core:.0f} % of a core"
        )


@contextmanager
def heartbeats(store: SyncStore) -> Iterator[None]:
    """Many workers with a heartbeat each second."""
    host = "scale"
    records = [WorkerRecord.now("adapt", f"{host}-{number:08x}", "cpu") for number in range(WORKERS)]
    ended = threading.Event()

    def send() -> None:
        while not ended.wait(1 / WORKERS):
            record = records[int(time.monotonic() * WORKERS) % WORKERS]
            store.workers.heartbeat(record)

    for record in records:
        store.workers.heartbeat(record)
    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def measure(installation: Installation, ready: str, queued: Sequence[str]) -> Figures:
    """``ready``: an episode with a classifier; ``queued``: those to follow, each by two streams."""
    redis = installation.redis_client
    with installation.client() as client, heartbeats(installation.store):
        asked: dict[str, Callable[[], object]] = {
            "readyz": lambda: client.get("/readyz"),
            "metrics": lambda: (client.get("/metrics"), client.get("/metrics/installation")),
            "list": lambda: client.get("/episodes"),
            "predict": lambda: predict(client, ready, QUERY),
        }
        times = {name: p99(request) for name, request in asked.items()}
        check = p99(lambda: _check(installation))
        episodes, used = redis.zcard(keys.index("episode")), redis.info("memory")["used_memory"]
        core, delay = _streams(installation, asked["predict"], queued)
    return Figures(episodes, used / 1e6, **times, check=check, streams_core=core, streams_delay=delay)


def p99(call: Callable[[], object]) -> float:
    """The 99th percentile of its time, in ms, in the round that other programs on the machine disturbed least."""
    for _ in range(WARM_UP):
        call()
    return min(_percentile([_time(call) for _ in range(REQUESTS)]) for _ in range(ROUNDS))


def _time(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1000 * (time.perf_counter() - started)


def _percentile(times: list[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


def _check(installation: Installation) -> None:
    """What ``lamanas worker adapt --check`` asks, with a connection of its own."""
    store = SyncStore.open(installation.settings)
    assert store.workers.count_on_host("adapt", "scale") == WORKERS
    store.close()


def _streams(installation: Installation, request: Callable[[], object], queued: Sequence[str]) -> tuple[float, float]:
    """What event streams of these episodes cost: per cent of a core, and ms that other requests take longer."""
    alone, without = _under_way(installation, request, queued, 0)
    with Streams(installation.url, installation.token, [*queued, *queued]):
        shared, within = _under_way(installation, request, queued, CHANGES_PER_S)
    return shared - alone, within - without


def _under_way(
    installation: Installation, request: Callable[[], object], ids: Sequence[str], changes_per_s: int
) -> tuple[float, float]:
    """Per cent of a core that the app and Redis use, and the 99th percentile of a request's time in ms, while records
    change."""
    redis = installation.redis_client
    pids = (installation.apps[0].pid, installation.redis.pid)
    times: list[float] = []
    started, used = time.monotonic(), sum(map(_cpu_seconds, pids))
    changed = 0
    while (passed := time.monotonic() - started) < STREAMS_S:
        while changed < passed * changes_per_s:
            id = ids[changed * 7 % len(ids)]
            progress = to_json({"step": 1, "losses": [1 / (changed + 1)]})
            redis.hset(keys.record("episode", id), "progress", progress)
            redis.publish(keys.CHANGES, f"episode:{id}")
            changed += 1
        times.append(_time(request))
        time.sleep(0.02)
    return 100 * (sum(map(_cpu_seconds, pids)) - used) / (time.monotonic() - started), _percentile(times)


def _cpu_seconds(pid: int) -> float:
    """Of the process itself, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
