"""What became of each fault, in a file of JSON lines, so that a second start goes on where the first one ended."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.mutants.sample import Mutant


@dataclass(frozen=True)
class Result:
    """``outcome`` is ``killed``, ``timeout`` (which counts as killed) or ``survived``; ``by`` is the test that failed.

    ``tests`` are the digests of the test files that belong, as they were.
    """

    id: str
    path: str
    line: int
    outcome: str
    by: str
    seconds: float
    tests: Mapping[str, str]
    diff: str

    @property
    def killed(self) -> bool:
        return self.outcome != "survived"

    def holds(self, tests: Mapping[str, str]) -> bool:
        """Whether it would come out the same: the file that killed is unchanged, or all that did not are."""
        killer = self.by.partition("::")[0]
        if self.killed and killer in self.tests:
            return tests.get(killer) == self.tests[killer]
        return dict(tests) == dict(self.tests)


class Results:
    """The results of all runs so far. A mutant's id has the digest of its source in it, so that a changed source file
    makes those of its own faults unknown, and no others."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._faults, self._baseline = folder / "results.jsonl", folder / "baseline.jsonl"
        self._known = {line["id"]: Result(**line) for line in _lines(self._faults)}
        self._seconds = {(line["tree"], line["test"]): line["seconds"] for line in _lines(self._baseline)}

    def add(self, result: Result) -> None:
        self._known[result.id] = result
        _append(self._faults, asdict(result))

    def of(self, mutant: Mutant, tests: Mapping[str, str]) -> Result | None:
        """The result of a mutant, where it is known and still holds with these digests of its tests."""
        result = self._known.get(mutant.id)
        return result if result is not None and result.holds(tests) else None

    def add_baseline(self, tree: str, test: str, seconds: float) -> None:
        """Notes that a test file passes without any fault, and how long it takes."""
        self._seconds[tree, test] = seconds
        _append(self._baseline, {"tree": tree, "test": test, "seconds": seconds})

    def baseline(self, tree: str, test: str) -> float | None:
        """Seconds that a test file takes with the code as it is, of which ``tree`` is a digest; None if unknown."""
        return self._seconds.get((tree, test))


def summary(tried: Sequence[tuple[str, Result]]) -> list[str]:
    """Lines on the results, each with its area; the last one is the verdict."""
    lines = []
    for area in dict.fromkeys(area for area, _ in tried):
        mine = [result for of, result in tried if of == area]
        lines.append(f"{area}: tried {len(mine)}, killed {sum(result.killed for result in mine)}")
    timeouts = sum(result.outcome == "timeout" for _, result in tried)
    lines.append(f"killed by running out of time: {timeouts}")
    return [*lines, f"mutants: tried {len(tried)}, killed {sum(result.killed for _, result in tried)}"]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The records of a file; a line that was cut short, as by a power failure, is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text().splitlines():
        with suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def _append(path: Path, record: dict[str, Any]) -> None:
    """Starts on a new line, whatever the last one is: a line that was cut short must not spoil this one."""
    with path.open("a") as file:
        file.write(f"\n{json.dumps(record)}\n")
