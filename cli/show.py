"""Output of commands: tables and progress bars for people, JSON for programs."""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

BAR = 30
CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def add_json(parser: argparse.ArgumentParser, **more: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON", **more)


def print_json(value: Any) -> None:
    """Prints one line; responses of the service keep its field names."""
    print(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} is not JSON serializable")


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints columns that fit their content; numbers are aligned to the right."""
    lines = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        print("  ".join(cell.rjust(width) if _numeric(cell) else cell.ljust(width) for cell, width in cells).rstrip())


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Prints a line for each name and value."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name.ljust(width)}  {printable(value)}")


def print_notes(notes: Iterable[str]) -> None:
    """Prints a line for each to standard error: what there is to know about how a folder or zip was read."""
    for note in notes:
        print(f"note: {printable(note)}", file=sys.stderr)


def printable(value: object) -> str:
    """Text without control characters: names come from other users, and terminals would interpret these.

    Spaces, joiners and emoji of Unicode stay; what reverses the order of the text, or breaks the line, does not.
    """
    return CONTROLS.sub("\N{REPLACEMENT CHARACTER}", str(value))


def print_bar(done: int, total: int, words: str) -> None:
    """Prints to standard error; on a terminal, each bar replaces the previous one."""
    filled = BAR * done // total if total else 0
    line = f"[{'#' * filled}{'-' * (BAR - filled)}] {done}/{total}  {words}"
    terminal = sys.stderr.isatty()
    # On a terminal: erase the rest of a longer previous line, and let the next one overwrite this.
    end = ("\033[K" if terminal else "") + ("\r" if terminal and done < total else "\n")
    print(line, end=end, file=sys.stderr, flush=True)


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def moment(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def _numeric(cell: str) -> bool:
    return cell.removesuffix("%").strip().replace(".", "", 1).isdigit()
