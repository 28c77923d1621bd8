"""Puts faults into copies of the tree, one at a time in each, and runs the tests that belong to them."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from cli import tether
from tests.mutants.results import Result, Results
from tests.mutants.sample import Mutant, digest
from tests.mutants.tests_of import TABLE, belonging

# pytest's exit status. Any other is a failure: of a test, of what the tests import, or of the interpreter.
PASSED = 0
FAILED = re.compile(r"^(?:FAILED|ERROR) (tests/\S+)", re.MULTILINE)
# The tests of a fault may take this much longer than they take without one, before it counts as killed by the clock.
LONGER, AND_S = 2.0, 20.0

Item = TypeVar("Item")


class BaselineError(Exception):
    """A test file fails without any fault, so that its failures would tell nothing."""


@dataclass(frozen=True)
class Ran:
    """``status`` is pytest's; None means that it ran out of time."""

    status: int | None
    output: str
    seconds: float


@dataclass
class Copy:
    """A copy of the tree, of its own: the working tree is never touched."""

    folder: Path
    original: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def tree(self) -> Path:
        return self.folder / "tree"

    def pytest(self, tests: Iterable[str], timeout_s: float) -> Ran:
        """Runs test files up to the first failure; leaves no process and no temporary file behind."""
        temporary, log = self.folder / "t", self.folder / "log"
        temporary.mkdir()
        environment = os.environ | {
            "PYTHONPATH": str(self.tree),  # before the installed project, which is the working tree
            "PYTHONDONTWRITEBYTECODE": "1",  # two faults in a second, of one size, look the same to the bytecode cache
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(temporary),
        }
        # Where tests look for it otherwise, beside the repository, is nothing beside a copy.
        environment.setdefault("LAMANAS_OMNIGLOT", str(self.original.parent / "shared" / "omniglot"))
        options = ["-x", "--tb=no", "-rfE", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        command = [sys.executable, "-m", "pytest", *options, *tests]
        started = time.monotonic()
        with log.open("wb") as output:
            # Tethered, so that a killed run leaves nothing behind; in a session of its own, to be ended as a whole.
            self.process = subprocess.Popen(
                tether.command(os.getpid(), command),
                cwd=self.tree,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            status: int | None = None
            with suppress(subprocess.TimeoutExpired):
                status = self.process.wait(timeout_s)
            self.end()
        seconds = time.monotonic() - started
        shutil.rmtree(temporary, ignore_errors=True)
        # Examples that failed with one fault would be tried first with the next.
        shutil.rmtree(self.tree / ".hypothesis", ignore_errors=True)
        return Ran(status, log.read_text(errors="replace"), seconds)

    def end(self) -> None:
        """Ends the tests that run, and all that they started and did not put into a session of its own."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @contextmanager
    def fault(self, mutant: Mutant) -> Iterator[None]:
        path = self.tree / mutant.path
        before = path.read_text()
        path.write_text(mutant.code)
        try:
            yield
        finally:
            path.write_text(before)


def tracked(root: Path) -> list[str]:
    """The files of the working tree that git does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True)
    return sorted(path for path in set(done.stdout.split("\0")) if path and (root / path).is_file())


@contextmanager
def copies(root: Path, number: int) -> Iterator[list[Copy]]:
    """Copies of the working tree, in a folder whose path leaves room for the unix sockets of tests."""
    folder = Path(tempfile.mkdtemp(prefix="mu-", dir="/tmp"))
    made = [Copy(folder / str(number), root) for number in range(number)]
    try:
        for copy in made:
            for path in tracked(root):
                (copy.tree / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / path, copy.tree / path)
        yield made
    finally:
        for copy in made:
            copy.end()
        shutil.rmtree(folder, ignore_errors=True)


class Run:
    """One run: a fault at a time in each copy of the tree, until all are tried or the time is up."""

    def __init__(self, root: Path, results: Results, until: float, table: Mapping[str, str] = TABLE) -> None:
        """``until`` is a time of the monotonic clock."""
        self._root, self._results, self._until, self._table = root, results, until, table
        self._digests = {path: digest((root / path).read_bytes()) for path in tracked(root)}
        self._tree = digest("\n".join(f"{path} {of}" for path, of in self._digests.items() if path.endswith(".py")))
        self._stopped = False

    def tests(self, mutant: Mutant) -> dict[str, str]:
        """The test files that belong to a fault, in the order in which they run, with their digests."""
        return {test: self._digests[test] for test in belonging(mutant.path, self._table)}

    def result(self, mutant: Mutant) -> Result | None:
        """What became of a fault, where that is known, from this run or an earlier one."""
        return self._results.of(mutant, self.tests(mutant))

    def go(self, mutants: Iterable[Mutant], workers: int) -> None:
        """Tries all whose result is not known yet. BaselineError if a test file fails without any fault."""
        unknown = [mutant for mutant in mutants if self.result(mutant) is None]
        tests = dict.fromkeys(test for mutant in unknown for test in self.tests(mutant))
        unmeasured = [test for test in tests if self._results.baseline(self._tree, test) is None]
        if not unknown:
            return
        with copies(self._root, workers) as made, ThreadPoolExecutor(workers) as pool:
            free: SimpleQueue[Copy] = SimpleQueue()
            for copy in made:
                free.put(copy)
            try:
                self._each(pool, free, self._measure, unmeasured)
                self._each(pool, free, self._try, unknown)
            finally:
                self._stopped = True
                for copy in made:
                    copy.end()

    def _each(
        self, pool: ThreadPoolExecutor, free: SimpleQueue[Copy], act: Callable[[Copy, Item], str], items: Sequence[Item]
    ) -> None:
        """Does something with each item, in whichever copy is free, and says so; nothing more once the time is up."""

        def with_a_copy(item: Item) -> str:
            copy = free.get()
            try:
                return act(copy, item) if not self._stopped and time.monotonic() < self._until else ""
            finally:
                free.put(copy)

        done = [pool.submit(with_a_copy, item) for item in items]
        try:
            for number, future in enumerate(as_completed(done), 1):
                if said := future.result():
                    print(f"{number}/{len(items)} {said}", flush=True)
        finally:
            for future in done:
                future.cancel()

    def _measure(self, copy: Copy, test: str) -> str:
        ran = copy.pytest([test], self._until - time.monotonic())
        if self._stopped or ran.status is None:
            return ""
        if ran.status != PASSED:
            raise BaselineError(f"{test} fails without any fault (pytest ended with {ran.status}):\n{ran.output}")
        self._results.add_baseline(self._tree, test, ran.seconds)
        return f"{test} passes without a fault in {ran.seconds:.1f} s"

    def _try(self, copy: Copy, mutant: Mutant) -> str:
        tests = self.tests(mutant)
        usual = [self._results.baseline(self._tree, test) for test in tests]
        seconds = [each for each in usual if each is not None]
        if len(seconds) < len(usual):
            return ""  # The time ran out while they were measured.
        limit = AND_S + LONGER * sum(seconds)
        left = self._until - time.monotonic()
        with copy.fault(mutant):
            ran = copy.pytest(tests, min(limit, left))
        if self._stopped or (ran.status is None and left < limit):
            return ""
        outcome = {None: "timeout", PASSED: "survived"}.get(ran.status, "killed")
        failed = FAILED.search(ran.output)
        by = failed[1] if failed and outcome == "killed" else ""
        self._results.add(
            Result(mutant.id, mutant.path, mutant.line, outcome, by, round(ran.seconds, 1), tests, mutant.diff)
        )
        return f"{mutant.path}:{mutant.line} {outcome} in {ran.seconds:.1f} s {by}".rstrip()
