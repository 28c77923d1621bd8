"""The tables that tell which modules get faults and which tests belong to them fit the tree."""

from itertools import chain

import pytest

from tests.mutants.tests_of import AREAS, EVERY_MODULE, ROOT, TABLE, belonging, files_of, row_of

# Packages may be empty files, in which there is no place for a fault.
MODULES = [path for area in AREAS.values() for path in files_of(area) if (ROOT / path).read_text().count("\n") > 1]


@pytest.mark.parametrize("path", MODULES)
def test_each_module_has_test_files_that_exist(path: str) -> None:
    tests = belonging(path)
    assert tests
    assert [test for test in tests if not (ROOT / test).is_file()] == []


def test_each_row_decides_for_a_module() -> None:
    assert set(TABLE) - {row_of(path) for path in MODULES} == {EVERY_MODULE}


@pytest.mark.parametrize("pattern", list(chain.from_iterable(AREAS.values())))
def test_each_glob_matches_a_file(pattern: str) -> None:
    assert files_of([pattern])


def test_no_module_is_in_two_areas() -> None:
    assert len(MODULES) == len(set(MODULES))


def test_the_longest_prefix_decides() -> None:
    table = {EVERY_MODULE: "all", "a/": "x/one", "a/b.py": "x/two y/three"}
    assert belonging("a/b.py", table) == ("tests/x/test_two.py", "tests/y/test_three.py", "tests/test_all.py")
    assert belonging("a/c.py", table) == ("tests/x/test_one.py", "tests/test_all.py")


def test_a_module_without_a_row_is_an_error() -> None:
    with pytest.raises(LookupError, match="elsewhere"):
        belonging("elsewhere.py")
