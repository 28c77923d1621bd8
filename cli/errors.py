"""How a command says that it cannot go on."""

from collections.abc import Iterator

from pydantic import ValidationError


class CommandError(Exception):
    """The text goes to standard error as it is, and the command ends with 1."""


def told(error: Exception) -> CommandError:
    """The same as a command says it: of a file, which it is and what is wrong with it."""
    if isinstance(error, OSError) and error.filename:
        return CommandError(f"{error.filename}: {error.strerror}")
    return CommandError(str(error))


def wrong_settings(error: ValidationError) -> Iterator[str]:
    """What is wrong with each setting, by the name of its variable."""
    for wrong in error.errors():
        name = "_".join(str(part) for part in wrong["loc"]).upper()
        setting = f"{name}: " if name == "REDIS_URL" else f"LAMANAS_{name}: " if name else ""
        yield setting + wrong["msg"].removeprefix("Value error, ")
