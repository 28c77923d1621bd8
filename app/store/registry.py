"""The Lua scripts: loaded once, checked, and called with named keys and arguments.

What must happen at once or not at all is a script in ``lua/``. Its first comment declares what it needs::

    -- include: common jobs                     files of lua/shared, to be put in front, in this order
    -- keys: record leases                      its KEYS; a last name with ``...`` is a list of any length
    -- args: id fence limit:number again:flag   its ARGV: text or bytes, a number, or true and false

In its body these are local variables, so that neither positions nor ``KEYS`` and ``ARGV`` occur in Lua or in Python. A
name that is declared and not used, or used and not declared, is refused when the script is loaded. Keys that a script
has to make by itself are fields of ``key`` (``key.record(kind, id)``), generated from ``keys.LUA_KEYS``.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

from redis.exceptions import NoScriptError, ReadOnlyError

from app.store import keys
from app.store.errors import refusals_named
from app.store.lua_names import BUILTINS, KEYWORDS, LuaError, names_in

FOLDER = Path(__file__).parent / "lua"
_DECLARATION = re.compile(r"-- (include|keys|args): (.*)")
_NAME = re.compile(r"[a-z_][a-z0-9_]*")
Type = Literal["text", "number", "flag"]
_LUA: dict[Type, str] = {"text": "ARGV[{}]", "number": "tonumber(ARGV[{}])", "flag": "ARGV[{}] == '1'"}


@dataclass(frozen=True)
class Call:
    """A script with what it is called with; ``run`` and ``run_async`` send it."""

    script: "Script"
    keys: list[str]
    args: list[str | bytes | int | float]

    @property
    def by_digest(self) -> tuple[Any, ...]:
        """The arguments of EVALSHA."""
        return self.script.digest, len(self.keys), *self.keys, *self.args

    @property
    def by_source(self) -> tuple[Any, ...]:
        """The arguments of EVAL, which Redis remembers for the next EVALSHA."""
        return self.script.source, len(self.keys), *self.keys, *self.args


@dataclass(frozen=True)
class Script:
    """A loaded script. Calling it sends nothing: it checks the names and types and returns what to send."""

    name: str
    source: str
    digest: str
    keys: tuple[str, ...]
    rest: str | None
    args: Mapping[str, Type]

    def __call__(self, **given: Any) -> Call:
        """Every declared key and argument by its name. Raises TypeError for a missing or unknown name or a wrong type.

        Keys are strings (the one with ``...`` a list of them); text is str, bytes or int; a flag is a bool.
        """
        if len(given) != len(self.keys) + len(self.args) + (self.rest is not None) or not self._declares(given):
            declared = {*self.keys, *self.args} | ({self.rest} if self.rest else set())
            raise TypeError(
                f"script {self.name}: missing {sorted(declared - set(given))}, unknown {sorted(set(given) - declared)}"
            )
        names = [self._key(name, given[name]) for name in self.keys]
        if self.rest is not None:
            names += [self._key(self.rest, name) for name in given[self.rest]]
        return Call(self, names, [self._argument(name, type, given[name]) for name, type in self.args.items()])

    def _declares(self, given: Mapping[str, Any]) -> bool:
        return all(name in self.args or name in self.keys or name == self.rest for name in given)

    def _key(self, name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"script {self.name}: key {name} is {type(value).__name__}, not str")
        return value

    def _argument(self, name: str, type_: Type, value: Any) -> str | bytes | int | float:
        accepted = {"text": (str, bytes, int), "number": (int, float), "flag": (bool,)}[type_]
        if not isinstance(value, accepted) or isinstance(value, bool) != (type_ == "flag"):
            raise TypeError(f"script {self.name}: {name} is {type(value).__name__}, not {type_}")
        return int(value) if isinstance(value, bool) else value


def run(redis: Any, call: Call) -> Any:
    """Sends the call by a blocking client. Raises ``errors.UNAVAILABLE``."""
    try:
        with refusals_named():
            try:
                return redis.evalsha(*call.by_digest)
            except NoScriptError:  # Redis was started anew, or its scripts were flushed
                return redis.eval(*call.by_source)
    except ReadOnlyError:  # only Redis before 7 hides from the client library that it has become a replica
        redis.connection_pool.disconnect()
        raise


async def run_async(redis: Any, call: Call) -> Any:
    """As ``run``, by an asynchronous client."""
    try:
        with refusals_named():
            try:
                return await redis.evalsha(*call.by_digest)
            except NoScriptError:
                return await redis.eval(*call.by_source)
    except ReadOnlyError:
        await redis.connection_pool.disconnect(inuse_connections=False)
        raise


@cache
def script(name: str) -> Script:
    """The script ``lua/<name>.lua``. Raises LuaError, FileNotFoundError."""
    return load(name, FOLDER)


def load(name: str, folder: Path) -> Script:
    """Reads ``<name>.lua`` and what it includes from the folder. Raises LuaError, FileNotFoundError."""
    body = (folder / f"{name}.lua").read_text()
    try:
        include, declared_keys, declared_args = _header(body)
        shared = [(folder / "shared" / f"{library}.lua").read_text() for library in include]
        names, rest = _keys(declared_keys)
        args = _args(declared_args)
        _check(shared, body, [*names, *args, *([rest] if rest else [])])
        parts = [_key_table([*shared, body]), *shared, _prologue(names, rest, args), body]
    except LuaError as error:
        raise LuaError(f"{name}.lua: {error}") from error
    source = "\n".join(filter(None, parts))
    return Script(name, source, hashlib.sha1(source.encode()).hexdigest(), names, rest, args)  # noqa: S324


def _header(body: str) -> tuple[list[str], list[str], list[str]]:
    declared: dict[str, list[str]] = {"include": [], "keys": [], "args": []}
    for line in body.splitlines():
        if not line.startswith("--"):
            break
        if match := _DECLARATION.fullmatch(line):
            declared[match[1]] += match[2].split()
    return declared["include"], declared["keys"], declared["args"]


def _keys(declared: list[str]) -> tuple[tuple[str, ...], str | None]:
    rest = declared.pop().removesuffix("...") if declared and declared[-1].endswith("...") else None
    return tuple(declared), rest


def _args(declared: list[str]) -> dict[str, Type]:
    args: dict[str, Type] = {}
    for word in declared:
        name, _, type = word.partition(":")
        if name in args:
            raise LuaError(f"{name} is declared twice")
        if type and type not in get_args(Type):
            raise LuaError(f"{name} has the unknown type {type}")
        args[name] = type or "text"  # type: ignore[assignment]
    return args


def _check(shared: list[str], body: str, declared: list[str]) -> None:
    """Raises LuaError unless every name is declared or defined once, before its use, and every declared one is used."""
    known: set[str] = set(BUILTINS) | {"key"}
    for source in shared:
        known |= _checked(source, known)
    for name in declared:
        if not _NAME.fullmatch(name) or name in KEYWORDS:
            raise LuaError(f"{name!r} cannot be the name of a variable")
        if name in known:
            raise LuaError(f"{name} is declared twice, or the name of something else")
        known.add(name)
    _checked(body, known)
    if unused := set(declared) - names_in(body).used:
        raise LuaError(f"declared and not used: {', '.join(sorted(unused))}")


def _checked(source: str, known: set[str]) -> frozenset[str]:
    names = names_in(source)
    if unknown := names.used - names.defined - known:
        raise LuaError(f"used and not declared: {', '.join(sorted(unknown))}")
    if again := names.defined & known:
        raise LuaError(f"defined again: {', '.join(sorted(again))}")
    return names.top_level


def _prologue(names: tuple[str, ...], rest: str | None, args: Mapping[str, Type]) -> str:
    lines = [f"local {name} = KEYS[{number}]" for number, name in enumerate(names, 1)]
    if rest is not None:
        lines.append(f"local {rest} = " + (f"{{unpack(KEYS, {len(names) + 1})}}" if names else "KEYS"))
    lines += [f"local {name} = {_LUA[type].format(number)}" for number, (name, type) in enumerate(args.items(), 1)]
    return "\n".join(lines)


def _key_table(sources: list[str]) -> str:
    """``local key = {...}`` with the fields that these sources use."""
    fields = sorted({field for source in sources for table, field in names_in(source).fields if table == "key"})
    if unknown := set(fields) - set(keys.LUA_KEYS):
        raise LuaError(f"not in LUA_KEYS: {', '.join(sorted(unknown))}")
    if not fields:
        return ""
    return "local key = {\n" + "".join(f"  {name} = {_lua(keys.LUA_KEYS[name])},\n" for name in fields) + "}"


def _lua(name: str | Callable[..., str]) -> str:
    """A key as a Lua string, or the function that makes it as a Lua function."""
    if isinstance(name, str):
        return f"'{name}'"
    parameters = list(signature(name).parameters)
    text = name(*(f"\0{parameter}\0" for parameter in parameters))
    parts = text.split("\0")  # text, parameter, text, parameter, ..., text
    if sorted(parts[1::2]) != sorted(parameters):
        raise LuaError(f"{name.__name__}() does not consist of its parameters")
    terms = [part if number % 2 else f"'{part}'" for number, part in enumerate(parts) if number % 2 or part]
    return f"function({', '.join(parameters)}) return {' .. '.join(terms)} end"
