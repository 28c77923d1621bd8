"""A primary, its replica and three sentinels, as docs/redis.md says, on free ports of the loopback address.

The replica is connected through a link that a test can break without either side noticing."""

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from app.settings import Settings
from cli import private_redis, tether
from tests.chaos.waiting import until
from tests.conftest import ROOT, free_port
from tests.pages import blocks

NAME = "mymaster"
PASSWORD, SENTINEL_PASSWORD = "secret", "another"


def texts(page: str) -> list[str]:
    """The text blocks of a page."""
    return blocks((ROOT / "docs" / page).read_text(), "text")


def documented(page: str, start: str) -> str:
    """The line of a text block that begins with these words, without them."""
    lines = "".join(texts(page)).splitlines()
    (found,) = [line.removeprefix(start) for line in lines if line.startswith(start)]
    return found


class Link:
    """Passes on what both sides send; once it is broken, it drops it."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.broken = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                one, _ = self._listening.accept()
                try:
                    other = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    one.close()
                    continue
                for pair in ((one, other), (other, one)):
                    pair[0].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    threading.Thread(target=self._pass_on, args=pair, daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(2**16):
                if not self.broken.is_set():
                    target.sendall(data)
        for side in (source, target):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listening.close()


@dataclass
class Node:
    """A server or a sentinel, with its configuration file."""

    folder: Path
    port: int
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        command = [str(private_redis.find_binary()), str(self.folder / "redis.conf"), *self.arguments]
        self.process = subprocess.Popen(
            tether.command(os.getpid(), command), stdout=subprocess.DEVNULL, start_new_session=True
        )
        self.client.ping()

    @property
    def client(self) -> Any:
        return Redis(port=self.port, retry=Retry(ConstantBackoff(0.02), 500))

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@dataclass
class Replicated:
    """``servers``: the first one is the primary at first; ``settings``: those of a service that uses it."""

    servers: tuple[Node, Node]
    link: Link
    settings: Settings

    def has_replica(self, number: int) -> bool:
        """Whether this server has a replica that has caught up."""
        found = self.servers[number].client.info("replication")
        return any(found.get(f"slave{n}", {}).get("state") == "online" for n in range(2))


@dataclass
class Sentinelled(Replicated):
    """With sentinels, which ``settings`` names."""

    sentinels: tuple[Node, ...]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "REDIS_URL": str(self.settings.redis_url),
            "LAMANAS_REDIS_SENTINELS": str(self.settings.redis_sentinels),
            "LAMANAS_DATA_DIR": str(self.settings.data_dir),
        }

    def primary_is(self, number: int) -> bool:
        """Whether all sentinels name this server as the primary."""
        port = self.servers[number].port
        return all(sentinel.client.sentinel_master(NAME)["port"] == port for sentinel in self.sentinels)

    def known(self) -> bool:
        """Whether each sentinel knows the replica and the other sentinels."""
        states = [sentinel.client.sentinel_master(NAME) for sentinel in self.sentinels]
        return all(state["num-slaves"] == 1 and state["num-other-sentinels"] == 2 for state in states)


@contextmanager
def replicated(folder: Path) -> Iterator[Replicated]:
    """A primary, once its replica has caught up."""
    first, second = (_server(folder / f"server-{n}") for n in range(2))
    link = Link(first.port)
    url = f"redis://lamanas:{PASSWORD}@127.0.0.1:{first.port}/0"
    found = Replicated((first, second), link, _settings(folder, redis_url=url))
    try:
        first.start()
        second.start()
        second.client.replicaof("127.0.0.1", link.port)
        until(lambda: found.has_replica(0), "the replica has caught up")
        yield found
    finally:
        link.close()
        first.kill()
        second.kill()


@contextmanager
def sentinelled(folder: Path) -> Iterator[Sentinelled]:
    """With three sentinels, once they know the replica and each other."""
    with replicated(folder) as servers:
        sentinels = tuple(_sentinel(folder / f"sentinel-{n}", servers.servers[0].port) for n in range(3))
        addresses = ",".join(f"127.0.0.1:{node.port}" for node in sentinels)
        settings = _settings(
            folder,
            redis_url=f"redis://lamanas:{PASSWORD}@{NAME}/0",
            redis_sentinels=f"lamanas:{SENTINEL_PASSWORD}@{addresses}",
        )
        found = Sentinelled(servers.servers, servers.link, settings, sentinels)
        try:
            for node in sentinels:
                node.start()
            until(found.known, "the sentinels know each other")
            yield found
        finally:
            for node in sentinels:
                node.kill()


def _settings(folder: Path, **values: str) -> Settings:
    return Settings(_env_file=None, data_dir=folder / "data", **values)  # type: ignore[call-arg, arg-type]


def _server(folder: Path) -> Node:
    rights = documented("redis.md", "ACL SETUSER lamanas on >PASSWORD ")
    (as_documented,) = [block for block in texts("redis.md") if block.startswith("appendonly yes\n")]
    return node(
        folder,
        *as_documented.splitlines(),
        'save ""',
        "repl-diskless-sync yes",
        "repl-diskless-sync-delay 0",
        f"user lamanas on >{PASSWORD} {rights}",
    )


def _sentinel(folder: Path, primary: int) -> Node:
    rights = documented("redis.md", "ACL SETUSER lamanas on >SENTINEL_PASSWORD ")
    sentinel = node(
        folder,
        f"sentinel monitor {NAME} 127.0.0.1 {primary} 2",
        f"sentinel down-after-milliseconds {NAME} 500",
        # Only then would a sentinel connect the replica past the link.
        f"sentinel failover-timeout {NAME} 60000",
        f"user lamanas on >{SENTINEL_PASSWORD} {rights}",
    )
    sentinel.arguments = ("--sentinel",)
    return sentinel


def node(folder: Path, *lines: str, port: int | None = None) -> Node:
    """A server with these lines in its configuration."""
    folder.mkdir(parents=True)
    port = port or free_port()
    common = (f"port {port}", "bind 127.0.0.1", f"dir {folder}", f"logfile {folder}/log")
    (folder / "redis.conf").write_text("\n".join((*common, *lines)) + "\n")
    return Node(folder, port)
