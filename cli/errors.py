"""Errors that end a command."""

from collections.abc import Iterator

from pydantic import ValidationError


class CommandError(Exception):
    """The message is printed to standard error, and the command exits with 1."""


def told(error: Exception) -> CommandError:
    """The same error for a command; for a file, with its name and what is wrong with it."""
    if isinstance(error, OSError) and error.filename:
        return CommandError(f"{error.filename}: {error.strerror}")
    return CommandError(str(error))


def wrong_settings(error: ValidationError) -> Iterator[str]:
    """A message for each invalid setting, with the name of its environment variable."""
    for wrong in error.errors():
        name = "_".join(str(part) for part in wrong["loc"]).upper()
        setting = f"{name}: " if name == "REDIS_URL" else f"LAMANAS_{name}: " if name else ""
        yield setting + wrong["msg"].removeprefix("Value error, ")
