"""The names in a zip file as text: many programs write them without saying in which encoding.

Names with the UTF-8 flag say it, and names in the extra field for UTF-8. The others of an archive share one encoding:
UTF-8 if they are valid UTF-8, otherwise the first of the code pages in which all of them look like words.
charset-normalizer chooses between code pages that are equally plausible; by itself it needs longer texts than names of
folders (docs/dependencies.md).
"""

import re
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

UTF8_FLAG = 0x800
# The extra field that holds the name in UTF-8, beside one in a code page (APPNOTE 4.6.9).
UNICODE_PATH = 0x7075
# As zipfile decodes names without the flag: each byte is a character, so that encoding restores the bytes.
ZIPFILES = "cp437"
# Latin letters of the code pages that hardly any name needs.
UNUSUAL = frozenset("ªºƒıŊŋĸŉſÞþ")
PUNCTUATION = frozenset("\xa0’–—、。，．・：；？！（）［］【】「」『』《》〈〉〜～ー々〆＿－＋＆　")
# Signs of quantities, where they are: 20 °C, 10 µm, ±5, 2 cm². Elsewhere their bytes are letters of other code pages.
SIGNS = re.compile(
    r"(?<=\d)[ _-]?(°(?=[CFK]?(?![^\W_]))|µ(?=[A-Za-z](?![^\W_])))|±(?= ?\d)|(?<![^\W\d_])[ckm]?m[²³](?![^\W_])"
)
# All names must be in the code page; whether they look like words is judged by this many characters of them, since
# a request may have megabytes of names.
SAMPLE = 50_000
WORD = re.compile(r"[^\W\d_]+")

Plausible = Callable[[str], bool]


class UnknownEncodingError(ValueError):
    """The names are in no encoding that is known here."""


@dataclass(frozen=True)
class Names:
    """The names of an archive's entries, in order; ``encoding``: the code page that was guessed, if one was."""

    texts: tuple[str, ...]
    encoding: str | None


def names_of(entries: Sequence[zipfile.ZipInfo]) -> Names:
    """The names of these entries, with "/" as their only separator. Raises UnknownEncodingError."""
    # orig_filename, since zipfile cuts names at a NUL and replaces the system's separators.
    said = [_said(entry) for entry in entries]
    raw = [
        b"" if name is not None else entry.orig_filename.encode(ZIPFILES)
        for entry, name in zip(entries, said, strict=True)
    ]
    encoding = encoding_of(raw)
    texts = (name.decode(encoding) if known is None else known for name, known in zip(raw, said, strict=True))
    return Names(tuple(text.replace("\\", "/") for text in texts), None if encoding == "utf-8" else encoding)


def _said(entry: zipfile.ZipInfo) -> str | None:
    """The name, if the entry says that it is UTF-8: by its flag, or in the extra field of Info-ZIP and WinRAR."""
    if entry.flag_bits & UTF8_FLAG:
        return entry.orig_filename
    # Version 1, and the CRC of the name that it was written for: another program may have changed the name.
    current = b"\x01" + zlib.crc32(entry.orig_filename.encode(ZIPFILES)).to_bytes(4, "little")
    at = 0
    while at + 4 <= len(entry.extra):
        kind, size = struct.unpack_from("<HH", entry.extra, at)
        if kind == UNICODE_PATH and entry.extra.startswith(current, at + 4):
            return next(iter(_decoded([entry.extra[at + 4 + len(current) : at + 4 + size]], "utf-8") or ()), None)
        at += 4 + size
    return None


def encoding_of(names: Iterable[bytes]) -> str:
    """The encoding that all these names share. Raises UnknownEncodingError."""
    # Of each name only the parts that differ between encodings; no separator is within a double-byte character,
    # whose second byte may be a backslash.
    parts = sorted({part for name in names for part in name.split(b"/") if not part.isascii()})
    if _decoded(parts, "utf-8") is not None:
        return "utf-8"
    found = [page for page, plausible in CODE_PAGES.items() if _plausible(parts, page, plausible)]
    if found and CODE_PAGES[found[0]] is _is_latin:
        return found[0]
    wide = [page for page in found if page in DOUBLE_BYTE]
    if wide:
        # Common Korean syllables have the bytes of common Chinese characters; of three characters seldom all do.
        many = sum(byte > 127 for part in parts for byte in part) >= 6
        return "cp949" if "cp949" in wide and many else wide[0]
    found = _one_of_dos(parts, found)
    if found:
        return found[0] if len(found) == 1 else _detected(parts, found) or found[0]
    raise UnknownEncodingError("its names are neither UTF-8 nor in a known code page; pack it with UTF-8 names")


def _decoded(parts: Iterable[bytes], page: str) -> list[str] | None:
    try:
        return [part.decode(page) for part in parts]
    except UnicodeDecodeError:
        return None


def _plausible(parts: Sequence[bytes], page: str, plausible: Plausible) -> bool:
    texts = _decoded(parts, page)
    return texts is not None and all(plausible(unicodedata.normalize("NFC", text)) for text in _sample(texts))


def _sample(texts: Iterable[str]) -> Iterator[str]:
    """The first texts, with ``SAMPLE`` characters in all."""
    left = SAMPLE
    for text in texts:
        if left <= 0:
            return
        yield text[:left]
        left -= len(text)


def _one_of_dos(parts: Sequence[bytes], pages: Sequence[str]) -> list[str]:
    """Without all but one of the code pages of DOS, which have their letters in the same places.

    Hebrew and Greek look like Russian in capitals, or with capitals within words.
    """
    capitals = "".join(_decoded(parts, "cp866") or ()).isupper()
    order = ("cp862", "cp866", "cp737") if capitals else ("cp866", "cp737", "cp862")
    kept = next((page for page in order if page in pages), None)
    return [page for page in pages if page == kept or page not in order]


def _detected(parts: Sequence[bytes], pages: Sequence[str]) -> str | None:
    # Imported here: few archives need it, and it takes a while to load.
    from charset_normalizer import from_bytes

    best = from_bytes(b"\n".join(parts), cp_isolation=list(pages)).best()
    return next((page for page in pages if best is not None and best.encoding == page), None)


# ---------------------------------------------------------------------- what names look like in each script


def _foreign(text: str) -> str:
    """The characters that an encoding decides: beyond ASCII, and no punctuation."""
    return "".join(letter for letter in text if not letter.isascii() and letter not in PUNCTUATION)


def _is_latin(text: str) -> bool:
    """Latin letters with accents among plain ones, and no capital within a word; and signs of quantities."""
    text = SIGNS.sub(" ", text)
    if text.endswith("\\"):  # the second byte of a character in cp932, gbk or big5
        return False
    for letter in _foreign(text):
        if letter in UNUSUAL or not unicodedata.name(letter, "").startswith("LATIN "):
            return False
    for word in WORD.findall(text):
        if len(word) > 1 and not any(letter.isascii() for letter in word):
            return False
        if any(one.islower() and next.isupper() and not (one + next).isascii() for one, next in pairwise(word)):
            return False
    return True


def _is_of(script: str, *, lower: bool = False) -> Plausible:
    """Words of this script alone, without a capital within a word; ``lower``: and not of capitals alone."""

    def plausible(text: str) -> bool:
        words = [word for word in WORD.findall(text) if not word.isascii()]
        return (
            all(unicodedata.name(letter, "").startswith(script) for letter in (*_foreign(text), *"".join(words)))
            and not (lower and "".join(words).isupper())
            and not any(word[0] == "ς" for word in words)
            and not any(one.islower() and next.isupper() for word in words for one, next in pairwise(word))
        )

    return plausible


def _is_common(page: str, ranges: Sequence[tuple[int, int]]) -> Plausible:
    """Characters of these ranges of a double-byte code page: those in common use."""

    def common(letter: str) -> bool:
        # Of the characters that NFC replaced, such as the Ångström sign, the page may have none; they are not common.
        code = int.from_bytes(letter.encode(page, "ignore"))
        return any(first <= code <= last for first, last in ranges)

    return lambda text: all(map(common, _foreign(text)))


# In the order of preference. CP437 is what the format says; the first two agree on the letters of Western Europe.
CODE_PAGES: dict[str, Plausible] = {
    "cp437": _is_latin,
    "cp850": _is_latin,
    "cp1252": _is_latin,
    "cp852": _is_latin,
    "cp1250": _is_latin,
    "cp857": _is_latin,
    # JIS level 1, kana and full-width letters; GB 2312 level 1; Big5 level 1; the syllables of KS X 1001.
    "cp932": _is_common("cp932", [(0x824F, 0x8396), (0x889F, 0x9872)]),
    "gbk": _is_common("gbk", [(0xA3B0, 0xA3FA), (0xB0A1, 0xD7F9)]),
    "big5": _is_common("big5", [(0xA2AF, 0xA343), (0xA440, 0xC67E)]),
    "cp949": _is_common("cp949", [(0xA3B0, 0xA3FA), (0xB0A1, 0xC8FE)]),
    "cp866": _is_of("CYRILLIC "),
    "cp1251": _is_of("CYRILLIC "),
    "cp1253": _is_of("GREEK "),
    "cp737": _is_of("GREEK ", lower=True),
    "cp1255": _is_of("HEBREW LETTER "),
    "cp862": _is_of("HEBREW LETTER "),
    "cp1256": _is_of("ARABIC "),
    "cp874": _is_of("THAI "),
}
DOUBLE_BYTE = frozenset({"cp932", "gbk", "big5", "cp949"})
