"""The service that commands talk to: that of the login, or else the one that ``lamanas serve`` runs here."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from cli.errors import CommandError, told
from lamanas_client import Client, LamanasError
from lamanas_client.connecting import on_this_machine
from lamanas_core.files import write_whole

CONNECT_S = 5.0


@dataclass(frozen=True)
class Login:
    url: str
    token: str


def login_file() -> Path:
    """In the user's configuration folder (XDG base directory specification)."""
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return (given if given.is_absolute() else Path.home() / ".config") / "lamanas" / "login.json"


def keep(login: Login) -> Path:
    """Stores the login in place of any earlier one, unreadable for other users. Returns the file."""
    path = login_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(login)).encode(), 0o600)
    return path


def find() -> Login:
    """The stored login, or else the service on this machine. Raises CommandError if there is neither."""
    kept = login_file()
    if not kept.exists():
        return local()
    try:
        return Login(**json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(f"{kept} cannot be read ({error}): sign in again with `lamanas login`") from error


def local() -> Login:
    """The service with these settings, as its admin. Raises CommandError."""
    # Slow to import, and not needed with a login.
    from app.settings import Settings
    from cli import admin

    settings = Settings()
    token = admin.read(settings)
    if token is None:
        raise CommandError(
            "not signed in: `lamanas login URL` signs in to a service; a service that `lamanas serve` runs on this "
            f"machine is found by its data directory, but {settings.data_dir} has none"
        )
    return Login(admin.url(settings), token)


@contextmanager
def service() -> Iterator[Client]:
    """A client of the service, whose errors are raised as CommandError."""
    with client(find()) as found:
        yield found


@contextmanager
def client(login: Login) -> Iterator[Client]:
    require_listener(login.url)
    try:
        with Client(login.url, login.token) as found:
            yield found
    except (LamanasError, OSError, ValueError) as error:
        raise told(error) from error


def require_listener(url: str) -> None:
    """Raises CommandError if nothing listens there: the client would retry for half a minute, as during a restart.

    If the environment names a proxy for the URL, the proxy is checked instead.
    """
    proxy = None
    try:
        proxy = _proxy(url)
        parts = urlsplit(url if proxy is None else proxy)
        address = (parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80))
        socket.create_connection(address, timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        if proxy is not None:
            raise CommandError(f"the proxy that the environment names for {url} does not respond ({error})") from error
        raise CommandError(f"nothing responds at {url} ({error}): is the service running at that address?") from error


def _proxy(url: str) -> str | None:
    """The URL of the proxy that the client will use, from HTTPS_PROXY, NO_PROXY and the like, as httpx reads them."""
    parts, proxies = urlsplit(url), getproxies()
    host, proxy = parts.hostname or "", proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or on_this_machine(host) or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"
