"""Which names a piece of Lua defines and uses: enough of Lua's syntax to find a misspelt name before a script runs."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_WORD = re.compile(
    r"""(?P<comment>--[^\n]*)
    |(?P<string>'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*")
    |(?P<number>\d+(?:\.\d+)?)
    |(?P<name>[A-Za-z_]\w*)
    |(?P<space>\s+)
    |(?P<symbol>\.{1,3}|[=~<>]=|[-+*/%^\#=<>;:,(){}\[\]])""",
    re.VERBOSE,
)
KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        "and break do else elseif end false for function if in local nil not or repeat return then true until while",
    )
)
# (while and for open their block by do.)
_OPENING, _CLOSING = frozenset({"function", "if", "do", "repeat"}), frozenset({"end", "until"})
# What Redis gives to every script, and we use. KEYS and ARGV are the registry's alone.
BUILTINS = frozenset({"cjson", "ipairs", "math", "pairs", "redis", "string", "tonumber", "tostring"})


class LuaError(ValueError):
    """The script cannot be right: the message says where and why."""


@dataclass(frozen=True)
class Names:
    """``defined``: locals, parameters and loop variables; ``top_level``: the locals among them that the code after this
    one sees; ``used``: names where they are not defined; ``fields``: pairs of ``table.field``."""

    defined: frozenset[str]
    top_level: frozenset[str]
    used: frozenset[str]
    fields: frozenset[tuple[str, str]]


def names_in(source: str) -> Names:
    """Scopes are told apart only as ``top_level`` says. Raises LuaError for what is not a word."""
    words = [*_words(source), ""]
    locals, inner = _defining(words)
    used: set[str] = set()
    fields: set[tuple[str, str]] = set()
    braces = 0
    for at, word in enumerate(words):
        braces += (word == "{") - (word == "}")
        if not _is_name(word):
            continue
        if at and words[at - 1] in (".", ":"):
            fields.add((words[at - 2], word))
        elif at not in locals | inner and not (braces and words[at + 1] == "="):  # within braces, it names a field
            used.add(word)
    return Names(
        frozenset(words[at] for at in locals | inner),
        frozenset(words[at] for at in locals),
        frozenset(used),
        frozenset(fields),
    )


def _words(source: str) -> Iterator[str]:
    at = 0
    while at < len(source):
        match = _WORD.match(source, at)
        if match is None:
            line = source.count("\n", 0, at) + 1
            raise LuaError(f"line {line}: {source[at]!r} is not expected")
        if match.lastgroup not in ("comment", "space"):
            yield match[0]
        at = match.end()


def _defining(words: list[str]) -> tuple[set[int], set[int]]:
    """The places of the names that are defined there: as locals outside of every block, and in other ways."""
    locals: set[int] = set()
    inner: set[int] = set()
    depth = 0
    for at, word in enumerate(words):
        here = locals if depth == 0 else inner
        if word == "local":
            here |= {at + 2} if words[at + 1] == "function" else _listed(words, at + 1)
        elif word == "for":
            inner |= _listed(words, at + 1)
        elif word == "function":
            inner |= _listed(words, words.index("(", at) + 1)
        depth += (word in _OPENING) - (word in _CLOSING)
    return locals, inner


def _listed(words: list[str], at: int) -> set[int]:
    """The places of ``a, b, c`` from here on."""
    found = set()
    while _is_name(words[at]):
        found.add(at)
        at += 2 if words[at + 1] == "," else 1
        if words[at - 1] != ",":
            break
    return found


def _is_name(word: str) -> bool:
    return (word[:1].isalpha() or word[:1] == "_") and word not in KEYWORDS
