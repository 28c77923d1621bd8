"""The sample of faults: the same for a seed, spread over the areas by their places, without what cannot matter."""

from pathlib import Path

import pytest

from tests.mutants.sample import allotted, places_in, sample

AREAS = {"large": ("large/*.py",), "small": ("small/*.py",)}
SUM = "def total(a, b, c):\n    return a + b * c\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, functions in (("large/one.py", 20), ("large/two.py", 10), ("small/three.py", 10)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(SUM.replace("total", f"total_{n}") for n in range(functions)))
    return tmp_path


def spots(code: str) -> list[tuple[int, str]]:
    """Line and operators of each place, the latter without what they put in."""
    return [(place.line, place.changes[0].operator.split("_")[0]) for place in places_in("x.py", code)]


def test_a_seed_gives_the_same_sample_and_another_seed_another(root: Path) -> None:
    first = sample(root, AREAS, 20, 1)
    assert len({mutant.id for mutant in first}) == 20
    assert sample(root, AREAS, 20, 1) == first
    assert sample(root, AREAS, 20, 2) != first


def test_each_area_has_its_part_of_the_sample(root: Path) -> None:
    drawn = [mutant.area for mutant in sample(root, AREAS, 20, 1)]
    assert (drawn.count("large"), drawn.count("small")) == (15, 5)


def test_largest_remainders_get_what_whole_parts_leave() -> None:
    assert allotted({"a": 5, "b": 3, "c": 2}, 4) == {"a": 2, "b": 1, "c": 1}
    assert allotted({"a": 2, "b": 1}, 200) == {"a": 2, "b": 1}


def test_a_changed_line_leaves_the_faults_of_other_lines_in_the_sample(root: Path) -> None:
    before = sample(root, AREAS, 20, 1)
    path = root / "small" / "three.py"
    path.write_text("# A line more.\n" + path.read_text().replace("total_0(a, b, c)", "total_0(a, b, c=7)"))
    after = sample(root, AREAS, 20, 1)
    assert len({mutant.diff for mutant in before if "small" not in mutant.path} & {m.diff for m in after}) >= 14
    ids = {mutant.id for mutant in after}
    assert {mutant.path for mutant in before if mutant.id not in ids} <= {"small/three.py", "large/one.py"}


def test_each_fault_is_one_change_that_still_compiles(root: Path) -> None:
    for mutant in sample(root, AREAS, 80, 1):
        before = (root / mutant.path).read_text().splitlines()
        after = mutant.code.splitlines()
        changed = [number for number, (old, new) in enumerate(zip(before, after, strict=True), 1) if old != new]
        assert changed == [mutant.line]
        compile(mutant.code, mutant.path, "exec")


def test_an_operator_is_one_place_however_many_others_could_stand_there() -> None:
    (place,) = places_in("x.py", "y = a + b\n")
    assert len(place.changes) == 11
    assert len({change.operator for change in place.changes}) == 11


def test_annotations_are_no_places_and_defaults_are() -> None:
    assert spots("def f(x: int | None, *, y: A[1] = 2) -> A[3] | None:\n    z: A[4] | None = 5\n") == [
        (1, "NumberReplacer"),
        (2, "NumberReplacer"),
    ]
    assert places_in("x.py", "class A:\n    field: int | None\n") == []


def test_what_only_type_checkers_see_is_no_place_and_its_alternative_is() -> None:
    code = "if TYPE_CHECKING:\n    a = 1\nelse:\n    a = 2\nif RUNNING:\n    a = 3\n"
    assert spots(code) == [(4, "NumberReplacer"), (5, "AddNot"), (6, "NumberReplacer")]


def test_stars_of_parameters_and_calls_are_no_arithmetic() -> None:
    assert places_in("x.py", "def f(a, /, *, b, **c):\n    return g(*a, **c, d={**b}, e=[*a])\n") == []


def test_a_place_without_a_valid_change_gives_no_fault(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("if y := x:\n    pass\n")
    assert len(places_in("m.py", (tmp_path / "m.py").read_text())) == 1
    assert sample(tmp_path, {"all": ("m.py",)}, 1, 1) == []
