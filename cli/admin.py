"""The first admin token: read from its file, or created if the app listens on loopback only."""

from pathlib import Path

from app.settings import Settings
from app.store.api_keys import new_token
from app.store.clients import SyncStore
from app.store.records import SCOPES
from cli.errors import CommandError
from lamanas_core.files import write_new


class RevokedError(CommandError):
    """The key of the token in the data directory's file is revoked."""


def url(settings: Settings) -> str:
    """The URL of the app with these settings, as seen from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def ensure(settings: Settings, store: SyncStore) -> None:
    """Registers the token in the data directory's file as a key; without a file, creates one on loopback.

    Raises RevokedError if that key is revoked, and CommandError if the app would listen beyond this machine without
    any key: anybody who can reach it might get the first one.
    """
    token = read(settings)
    if token is None:
        if any(not key.revoked for key in store.api_keys.all()):
            return
        if not settings.loopback:
            raise CommandError(
                f"LAMANAS_HOST={settings.host} is open to other machines, and there are no keys yet: start once on "
                f"127.0.0.1, or put a token into {settings.admin_token_file} with `lamanas init`"
            )
        token = mint(settings)
    key, _ = store.api_keys.create("admin", SCOPES, token)
    if key.revoked:
        raise RevokedError(
            f"the key of the token in {settings.admin_token_file} is revoked: put the token of another admin key into "
            "that file, or delete it and start again (if no key is left, that creates a new one on loopback)"
        )


def read(settings: Settings) -> str | None:
    """The token in the file, or None without a file."""
    try:
        return settings.admin_token_file.read_text().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"the admin token cannot be read: {error}") from error


def mint(settings: Settings) -> str:
    """Writes a new token to the file, unless it has one, and returns the token."""
    return write_secret(settings.admin_token_file, new_token(), 0o600)


def write_secret(path: Path, secret: str, mode: int) -> str:
    """Writes a new file atomically. Returns its content, or that of a file that exists already."""
    try:
        write_new(path, f"{secret}\n".encode(), mode)
    except FileExistsError:
        return path.read_text().strip()
    return secret
