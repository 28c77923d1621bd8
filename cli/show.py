"""What commands print: tables and bars for people, JSON for programs."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import BaseModel

BAR = 30


def add_json(parser: argparse.ArgumentParser, **more: Any) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON", **more)


def print_json(value: Any) -> None:
    """One line; answers of the service have its own field names."""
    print(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no JSON")


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns as wide as what is in them; numbers to the right."""
    lines = [list(head), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = zip(line, widths, strict=True)
        print("  ".join(cell.rjust(width) if _numeric(cell) else cell.ljust(width) for cell, width in cells).rstrip())


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """A name and what it is, a line each."""
    width = max(len(name) for name, _ in fields)
    for name, value in fields:
        print(f"{name.ljust(width)}  {printable(value)}")


def printable(value: object) -> str:
    """A name may hold what a terminal takes for commands, and an admin sees everybody's."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in str(value))


def print_bar(done: int, total: int, words: str) -> None:
    """On standard error; on a terminal each bar takes the place of the one before."""
    filled = BAR * done // total if total else 0
    line = f"[{'#' * filled}{'-' * (BAR - filled)}] {done}/{total}  {words}"
    terminal = sys.stderr.isatty()
    # On a terminal: erase what a longer line before has left, and be overwritten by the next.
    end = ("\033[K" if terminal else "") + ("\r" if terminal and done < total else "\n")
    print(line, end=end, file=sys.stderr, flush=True)


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def moment(at: datetime) -> str:
    return at.astimezone().strftime("%Y-%m-%d %H:%M")


def _numeric(cell: str) -> bool:
    return cell.removesuffix("%").strip().replace(".", "", 1).isdigit()
