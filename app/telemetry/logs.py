"""Logs to standard error: JSON, one object a line; words for people where that is a terminal."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_about: ContextVar[dict[str, str] | None] = ContextVar("about", default=None)


def about() -> dict[str, str]:
    """What is being worked on: ``request_id``, ``episode``, ``training``."""
    return _about.get() or {}


@contextmanager
def working_on(**fields: str | None) -> Iterator[None]:
    """Every line that is logged inside carries these fields; None is left out."""
    token = _about.set(about() | {name: value for name, value in fields.items() if value is not None})
    try:
        yield
    finally:
        _about.reset(token)


class JsonLines(logging.Formatter):
    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "logger": record.name,
            "message": record.getMessage(),
            **about(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(process: str) -> None:
    """Call once in each process; ``process`` is its name in every line."""
    handler = logging.StreamHandler()
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s"))
    else:
        handler.setFormatter(JsonLines(process))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It tells of every wrong header that a client sends; the answer tells the client.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
