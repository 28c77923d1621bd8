"""Logs to standard error: one JSON object per line, or plain text if it is a terminal."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

_fields: ContextVar[dict[str, str] | None] = ContextVar("fields", default=None)


def current_fields() -> dict[str, str]:
    """The fields of the current context, among ``request_id``, ``episode`` and ``training``."""
    return _fields.get() or {}


@contextmanager
def with_fields(**fields: str | None) -> Iterator[None]:
    """Every line that is logged inside the block has these fields, except those that are None."""
    token = _fields.set(current_fields() | {name: value for name, value in fields.items() if value is not None})
    try:
        yield
    finally:
        _fields.reset(token)


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
            **current_fields(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(process: str) -> None:
    """Call once in each process; ``process`` is its name in the log."""
    handler = logging.StreamHandler()
    if sys.stderr.isatty():
        handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s"))
    else:
        handler.setFormatter(JsonLines(process))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # It logs every malformed header that a client sends, which the response reports anyway.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
