"""The service that commands talk to: the one signed in at, else the one that ``lamanas serve`` runs here."""

import ipaddress
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from cli.errors import CommandError, told
from lamanas_client import Client, LamanasError
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
    """Replaces the login that was kept before. No other user can read it."""
    path = login_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, json.dumps(asdict(login)).encode(), 0o600)
    return path


def find() -> Login:
    """Raises CommandError where there is neither a login nor a service of this machine's own."""
    kept = login_file()
    if not kept.exists():
        return local()
    try:
        return Login(**json.loads(kept.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise CommandError(f"{kept} cannot be read ({error}): sign in again with `lamanas login`") from error


def local() -> Login:
    """The service that these settings describe, as its admin. Raises CommandError."""
    # Slow to import, and a login needs none of it.
    from app.settings import Settings
    from cli import admin

    settings = Settings()
    token = admin.read(settings)
    if token is None:
        raise CommandError(
            "not signed in: `lamanas login URL` signs in at a service; a service that `lamanas serve` runs on this "
            f"machine is found by its data directory, and there is none in {settings.data_dir}"
        )
    return Login(admin.url(settings), token)


@contextmanager
def service() -> Iterator[Client]:
    """A client of the service. What goes wrong meanwhile is raised as CommandError."""
    with client(find()) as found:
        yield found


@contextmanager
def client(login: Login) -> Iterator[Client]:
    require_listener(login.url)
    with Client(login.url, login.token, transport=transport(login.url)) as found:
        try:
            yield found
        except (LamanasError, OSError, ValueError) as error:
            raise told(error) from error


def transport(url: str) -> httpx.HTTPTransport | None:
    """Past any proxy to a service on this machine, whose loopback interface no proxy knows; else as httpx chooses."""
    return httpx.HTTPTransport() if on_this_machine(urlsplit(url).hostname or "") else None


def require_listener(url: str) -> None:
    """Raises CommandError at once if nothing is there: the client would be patient with it, as with a restart.

    Where the environment names a proxy for it, the proxy has to be there: it alone may be reachable from here.
    """
    proxy = None
    try:
        proxy = _proxy(url)
        parts = urlsplit(url if proxy is None else proxy)
        address = (parts.hostname or "", parts.port or {"https": 443}.get(parts.scheme, 80))
        socket.create_connection(address, timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:
        if proxy is not None:
            raise CommandError(f"the proxy that the environment names for {url} does not answer ({error})") from error
        raise CommandError(f"nothing answers at {url} ({error}): is it running, and is that its address?") from error


def _proxy(url: str) -> str | None:
    """The URL of the proxy that the client will go through, as httpx reads HTTPS_PROXY, NO_PROXY and the like."""
    parts, proxies = urlsplit(url), getproxies()
    host, proxy = parts.hostname or "", proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or on_this_machine(host) or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def on_this_machine(host: str) -> bool:
    """Whether this name or address is one of the loopback interface."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
