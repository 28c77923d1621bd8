"""Scripts are checked when they are loaded, called with named arguments, and sent again when Redis has lost them."""

import asyncio
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from redis.asyncio import Redis as AsyncRedis

from app.settings import Settings
from app.store import keys, registry
from app.store.lua_names import BUILTINS, KEYWORDS, LuaError, names_in
from app.store.registry import Script, load, run, run_async, script
from tests.conftest import PrivateRedis

ALL = sorted(path.stem for path in registry.FOLDER.glob("*.lua"))
EXAMPLE = """-- What it is for.
-- include: numbers
-- keys: first second
-- args: name limit:number
-- args: again:flag
return {first, second, name, limit + one, tostring(again)}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "numbers.lua").write_text("local one = 1\n")
    return tmp_path


def loaded(folder: Path, source: str) -> Script:
    (folder / "example.lua").write_text(source)
    return load("example", folder)


def values_for_example(**changed: Any) -> dict[str, Any]:
    return {"first": "a", "second": "b", "name": "c", "limit": 4, "again": True} | changed


def test_a_script_sees_each_key_and_argument_by_its_name(redis_server: PrivateRedis, folder: Path) -> None:
    example = loaded(folder, EXAMPLE)
    for again, seen in ((True, b"true"), (False, b"false")):
        call = example(**values_for_example(again=again))
        assert run(redis_server.client, call) == [b"a", b"b", b"c", 5, seen]


def test_order_of_the_names_in_a_call_does_not_matter(folder: Path) -> None:
    example = loaded(folder, EXAMPLE)
    values = values_for_example()
    assert example(**values) == example(**dict(reversed(values.items())))
    assert (example(**values).keys, example(**values).args) == (["a", "b"], ["c", 4, 1])


@pytest.mark.parametrize("name", list(values_for_example()))
def test_missing_name_is_refused(folder: Path, name: str) -> None:
    example = loaded(folder, EXAMPLE)
    values = values_for_example()
    del values[name]
    with pytest.raises(TypeError, match=rf"missing \['{name}'\], unknown \[\]"):
        example(**values)


def test_unknown_name_is_refused_whether_or_not_another_is_missing(folder: Path) -> None:
    example = loaded(folder, EXAMPLE)
    with pytest.raises(TypeError, match=r"missing \[\], unknown \['third'\]"):
        example(**values_for_example(third="x"))
    values = values_for_example(frist="x")
    del values["first"]
    with pytest.raises(TypeError, match=r"missing \['first'\], unknown \['frist'\]"):
        example(**values)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": b"a"},
        {"second": None},
        {"name": 1.5},
        {"name": True},
        {"name": None},
        {"limit": "4"},
        {"limit": True},
        {"again": 1},
        {"again": "1"},
    ],
)
def test_value_of_another_type_than_declared_is_refused(folder: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"example: .*{next(iter(wrong))} is "):
        loaded(folder, EXAMPLE)(**values_for_example(**wrong))


def test_last_key_may_be_variadic(redis_server: PrivateRedis, folder: Path) -> None:
    cases: list[tuple[str, dict[str, str]]] = [("first others...", {"first": "a"}), ("others...", {})]
    for names, firsts in cases:
        first = "first" if firsts else "'a'"
        example = loaded(folder, f"-- keys: {names}\nreturn {{{first}, #others, others[1], others[2]}}")
        assert run(redis_server.client, example(others=["b", "c"], **firsts)) == [b"a", 2, b"b", b"c"]
        with pytest.raises(TypeError, match="missing"):
            example(**firsts)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("-- keys: record\nreturn recrod", "used and not declared: recrod"),
        ("-- keys: record\nreturn redis.call('GET', KEYS[1])", "used and not declared: KEYS"),
        ("-- args: id\nreturn ARGV[1]", "used and not declared: ARGV"),
        ("-- args: id\nreturn 1", "declared and not used: id"),
        ("-- keys: record\n-- args: record\nreturn record", "record is declared twice"),
        ("-- args: id id\nreturn id", "id is declared twice"),
        ("-- args: id:integer\nreturn id", "id has the unknown type integer"),
        ("-- args: end\nreturn 1", "'end' cannot be the name"),
        ("-- args: Id\nreturn Id", "'Id' cannot be the name"),
        ("-- args: redis\nreturn redis", "redis is declared twice, or the name of something else"),
        ("-- include: numbers\n-- args: one\nreturn one", "one is declared twice, or the name of something else"),
        ("-- include: numbers\nlocal one = 2\nreturn one", "defined again: one"),
        ("-- args: id\nlocal id = id\nreturn id", "defined again: id"),
        ("-- args: id\nfor _, id in ipairs({}) do end", "defined again: id"),
        ("return one", "used and not declared: one"),
        ("return key.recrod('episode', '1')", "not in LUA_KEYS: recrod"),
        ("x = 1", "used and not declared: x"),
        ("return [[long]]\n@", "line 2: '@' is not expected"),
        ("local one = 1\nlocal two = 2\n@", "line 3: '@' is not expected"),
        ("local one = {two == 2}\nreturn one", "used and not declared: two"),
    ],
)
def test_invalid_script_is_refused_when_it_is_loaded(folder: Path, source: str, wrong: str) -> None:
    with pytest.raises(LuaError, match=rf"example\.lua: .*{re.escape(wrong)}"):
        loaded(folder, source)


def test_included_files_are_prepended_in_the_declared_order(redis_server: PrivateRedis, folder: Path) -> None:
    (folder / "shared" / "double.lua").write_text("local function double(x) return one + one * x end\n")
    example = loaded(folder, "-- include: numbers double\n-- args: x:number\nreturn double(x)")
    assert run(redis_server.client, example(x=4)) == 5
    with pytest.raises(LuaError, match="used and not declared: one"):
        loaded(folder, "-- include: double numbers\n-- args: x:number\nreturn double(x)")


def test_missing_file_is_an_error(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        loaded(folder, "-- include: letters\nreturn 1")
    with pytest.raises(FileNotFoundError):
        script("no_such_script")


@pytest.mark.parametrize("name", ALL)
def test_every_script_is_used_and_compiles(redis_server: PrivateRedis, name: str) -> None:
    # Redis compiles a script when it is loaded.
    assert redis_server.client.script_load(script(name).source) == script(name).digest
    users = [path for path in registry.FOLDER.parent.glob("*.py") if f'script("{name}")' in path.read_text()]
    assert len(users) == 1


def test_prefix_of_the_keys_is_in_one_place() -> None:
    files = [path for path in registry.FOLDER.parent.rglob("*") if path.suffix in (".py", ".lua")]
    assert [path.name for path in files if "lam:" in path.read_text()] == ["keys.py"]


IDS = st.text(string.ascii_lowercase + string.digits + "' \\:", min_size=1, max_size=10)


def test_scripts_build_the_same_keys_as_python(redis_server: PrivateRedis, folder: Path) -> None:
    client = redis_server.client
    fields: dict[str, Callable[[str], str]] = {
        "record('episode', a)": lambda a: keys.record("episode", a),
        "record('training', a)": lambda a: keys.record("training", a),
        "index('episode', a)": lambda a: keys.index("episode", a),
        "model(a)": keys.model,
        "tombstone('episode', a)": lambda a: keys.tombstone("episode", a),
        "CHANGES": lambda a: keys.CHANGES,
        "SUPPORT_SETS": lambda a: keys.SUPPORT_SETS,
        "CLASSIFIERS": lambda a: keys.CLASSIFIERS,
        "STORED_BYTES": lambda a: keys.STORED_BYTES,
        "CLASSIFIERS_USED": lambda a: keys.CLASSIFIERS_USED,
        "FORMER_ACTIVE_MODEL": lambda a: keys.FORMER_ACTIVE_MODEL,
        "MEASUREMENTS": lambda a: keys.MEASUREMENTS,
    }
    assert {field.split("(")[0] for field in fields} == set(keys.LUA_KEYS)
    example = loaded(folder, "-- args: a\nreturn {a, " + ", ".join(f"key.{field}" for field in fields) + "}")

    @given(IDS)
    def same(id: str) -> None:
        expected = [id, *(make(id) for make in fields.values())]
        assert [part.decode() for part in run(client, example(a=id))] == expected

    same()


def test_key_that_hashes_its_argument_cannot_be_built_in_lua(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LUA_KEYS", {"idempotency": keys.idempotency})
    with pytest.raises(LuaError, match="does not consist of its parameters"):
        loaded(folder, "-- args: a\nreturn key.idempotency(a, a)")


def test_script_is_sent_again_when_redis_has_forgotten_it(redis_server: PrivateRedis, settings: Settings) -> None:
    lookup = script("lookup")
    client = redis_server.client

    async def body() -> None:
        asynchronous = AsyncRedis.from_url(settings.store_url)
        for _ in range(2):
            client.script_flush()
            assert await run_async(asynchronous, lookup(pairs_of_keys=["a", "b"])) == [None, None, None]
            assert client.script_exists(lookup.digest) == [True]
        await asynchronous.aclose()

    for _ in range(2):
        client.script_flush()
        assert run(client, lookup(pairs_of_keys=["a", "b"])) == [None, None, None]
        assert client.script_exists(lookup.digest) == [True]
    asyncio.run(body())


def test_known_script_is_sent_by_its_digest(redis_server: PrivateRedis) -> None:
    client: Any = redis_server.client
    for _ in range(3):
        run(client, script("lookup")(pairs_of_keys=[]))
    stats = client.info("commandstats")
    assert (stats["cmdstat_evalsha"]["calls"], stats["cmdstat_eval"]["calls"]) == (3, 1)


NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: name not in KEYWORDS | BUILTINS)


@given(defined=st.lists(NAMES, min_size=1, unique=True), used=NAMES)
def test_all_definitions_of_names_are_found(defined: list[str], used: str) -> None:
    assume(used not in defined)
    listed = ", ".join(defined)
    for source, top_level in (
        (f"local {listed} = 1, {used}", True),
        (f"local {listed}\nreturn {used}", True),
        (f"if {used} then local {listed} = 1 end", False),
        (f"for {listed} in {used} do end", False),
        (f"redis.call(function({listed}) return {used} end)", False),
        (f"while {used} do repeat local {listed} until true end", False),
    ):
        names = names_in(source)
        assert names.defined == set(defined)
        assert names.top_level == (set(defined) if top_level else set())
        assert names.used - {"redis"} == {used}


@given(NAMES)
def test_strings_comments_and_fields_are_not_uses(name: str) -> None:
    source = f'local a = {{{name} = \'{name}\', "\\"{name}"}} -- {name}\nreturn a.{name}'
    assert names_in(source).used == {"a"}


def test_names_of_fields_in_a_table_are_not_used_names() -> None:
    found = names_in("local one = {two = 2, three = four}\nreturn one.five")
    assert found.used - KEYWORDS == {"four", "one"}
