"""The first admin token: minted on loopback, found in its file, and otherwise demanded."""

from pathlib import Path

from app.settings import Settings
from app.store.api_keys import new_token
from app.store.clients import SyncStore
from app.store.records import SCOPES
from cli.errors import CommandError
from lamanas_core.files import write_new


class RevokedError(CommandError):
    """The token in the data directory's file opens nothing any more."""


def url(settings: Settings) -> str:
    """Where the app that these settings describe is reached from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def ensure(settings: Settings, store: SyncStore) -> None:
    """Makes the token in the data directory's file a key of the store; without a file, mints one on loopback.

    Raises RevokedError where that key is revoked, and CommandError where the app would listen beyond this machine
    without any key: then nobody could tell who made the first one.
    """
    token = read(settings)
    if token is None:
        if any(not key.revoked for key in store.api_keys.all()):
            return
        if not settings.loopback:
            raise CommandError(
                f"LAMANAS_HOST={settings.host} reaches beyond this machine, and there are no keys yet: start once on "
                f"127.0.0.1, or put a token into {settings.admin_token_file} with `lamanas init`"
            )
        token = mint(settings)
    key, _ = store.api_keys.create("admin", SCOPES, token)
    if key.revoked:
        raise RevokedError(
            f"the key of the token in {settings.admin_token_file} is revoked: put the token of another admin key into "
            "that file, or delete it and start again (where no key is left, that makes a new one on loopback)"
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
    """A new token, in the file; the one already there if there is one."""
    return write_secret(settings.admin_token_file, new_token(), 0o600)


def write_secret(path: Path, secret: str, mode: int) -> str:
    """Writes a new file whole or not at all; what is there already stays and is returned."""
    try:
        write_new(path, f"{secret}\n".encode(), mode)
    except FileExistsError:
        return path.read_text().strip()
    return secret
