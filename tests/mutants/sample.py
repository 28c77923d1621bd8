"""Which places get a fault, and which fault: a random sample that depends on the seed and on the code alone.

A *place* is a stretch of source that at least one of Cosmic Ray's operators can change: an arithmetic operator counts
once, though there are eleven others to put in its stead. Each area has of the sample what it has of all places.
"""

import ast
import difflib
import hashlib
import random
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.provider import OperatorProvider

from tests.mutants.tests_of import files_of

# Binary operators have these parents. Cosmic Ray also takes the stars and slashes of parameters for some.
BINARY = {"arith_expr", "term", "expr", "and_expr", "xor_expr", "shift_expr", "power"}
# These two need variables to be named, and change them to something random.
UNUSED = {"VariableReplacer", "VariableInserter"}
PROVIDER = OperatorProvider()
OPERATORS = {name: PROVIDER[name]() for name in PROVIDER if name not in UNUSED}

Position = tuple[int, int]


@dataclass(frozen=True)
class Change:
    """The n-th place of a file at which an operator can be applied; Cosmic Ray's way to name a mutation."""

    operator: str
    occurrence: int


@dataclass(frozen=True)
class Place:
    """``key`` stays the same while lines move, and when other lines of the file change."""

    path: str
    line: int
    key: str
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Mutant:
    """One fault: ``code`` is the whole file with it, ``source`` the digest of the file without it."""

    area: str
    path: str
    line: int
    change: Change
    source: str
    code: str
    diff: str

    @property
    def id(self) -> str:
        return digest(f"{self.path}\n{self.source}\n{self.change}")


def digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def places_in(path: str, code: str) -> list[Place]:
    """All places of a file, in the order of their lines."""
    found: dict[tuple[Position, Position], list[Change]] = defaultdict(list)
    seen: Counter[str] = Counter()
    for node in ast_nodes(get_ast(code)):
        for name, operator in OPERATORS.items():
            for span in operator.mutation_positions(node):
                if not _skipped(node, name):
                    found[span].append(Change(name, seen[name]))
                seen[name] += 1
    lines = code.splitlines()
    repeated: Counter[str] = Counter()
    places = []
    for (start, end), changes in sorted(found.items()):
        line = lines[start[0] - 1]
        indent = len(line) - len(line.lstrip())
        text = f"{path}\n{line.strip()}\n{start[1] - indent}\n{end[1] - indent}"
        places.append(Place(path, start[0], f"{text}\n{repeated[text]}", tuple(changes)))
        repeated[text] += 1
    return places


def _skipped(node: Any, operator: str) -> bool:
    """Whether a change of this node cannot matter when the program runs; docs/testing.md gives the reasons."""
    if operator.startswith("ReplaceBinaryOperator") and node.parent.type not in BINARY:
        return True
    if node.type == "if_stmt":  # whose condition is what gets the ``not``
        node = node.children[1]
    while node.parent is not None:
        parent, child = node.parent, node
        if _annotates(parent, child) or _only_for_checkers(parent, child):
            return True
        node = parent
    return False


def _annotates(parent: Any, child: Any) -> bool:
    if parent.type in {"tfpdef", "annassign"}:
        annotation = next(place for place, part in enumerate(parent.children) if part == ":") + 1
        return bool(parent.children[annotation] is child)
    return bool(parent.type == "funcdef" and parent.annotation is child)


def _only_for_checkers(parent: Any, child: Any) -> bool:
    if parent.type != "if_stmt":
        return False
    return parent.children[1].get_code().strip() == "TYPE_CHECKING" and child in parent.children[1:4]


def allotted(places: Mapping[str, int], number: int) -> dict[str, int]:
    """How many of each area, in proportion to its places: whole parts first, then the largest remainders."""
    total = sum(places.values())
    number = min(number, total)
    shares = {area: divmod(count * number, total) for area, count in places.items()}
    left = number - sum(whole for whole, _ in shares.values())
    largest = sorted(shares, key=lambda area: (-shares[area][1], area))[:left]
    return {area: whole + (area in largest) for area, (whole, _) in shares.items()}


def sample(root: Path, areas: Mapping[str, Sequence[str]], number: int, seed: int) -> list[Mutant]:
    """The faults to try, in random order. Changing one line of a file leaves almost all the others the same."""
    code = {path: (root / path).read_text() for area in areas.values() for path in files_of(area, root)}
    places = {
        area: [place for path in files_of(globs, root) for place in places_in(path, code[path])]
        for area, globs in areas.items()
    }
    mutants: dict[str, Mutant] = {}
    for area, count in allotted({area: len(found) for area, found in places.items()}, number).items():
        drawn = {digest(f"{seed}\n{place.key}"): place for place in places[area]}
        usable = _mutants(area, drawn, code)
        mutants |= {key: mutant for _, (key, mutant) in zip(range(count), usable, strict=False)}
    return [mutants[key] for key in sorted(mutants)]


def _mutants(area: str, drawn: Mapping[str, Place], code: Mapping[str, str]) -> Iterator[tuple[str, Mutant]]:
    """One of each place, in the order of the keys; none of a place where no change gives another valid program."""
    for key in sorted(drawn):
        place = drawn[key]
        for change in random.Random(key).sample(place.changes, len(place.changes)):
            before = code[place.path]
            after = mutate_code(before, OPERATORS[change.operator], change.occurrence)
            if _is_another_program(before, after):
                diff = unified_diff(place.path, before, after)
                yield key, Mutant(area, place.path, place.line, change, digest(before), after, diff)
                break


def _is_another_program(before: str, after: str) -> bool:
    with warnings.catch_warnings():
        # ``x is 1`` is worth a warning, and a fault as good as another.
        warnings.simplefilter("ignore", SyntaxWarning)
        try:
            compile(after, "mutant", "exec")
        except SyntaxError:
            return False
    return ast.dump(ast.parse(before)) != ast.dump(ast.parse(after))


def unified_diff(path: str, before: str, after: str) -> str:
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), path, path, n=2, lineterm="")
    return "\n".join(lines)
