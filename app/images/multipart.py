"""Reads multipart/form-data into memory, in the order sent and within a number of parts."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.http.problems import INVALID_REQUEST, MALFORMED_BODY, Problem


@dataclass
class Part:
    """One part: its form field, the name of the file if it is one, its bytes."""

    name: str = ""
    filename: str | None = None
    data: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        """Raises Problem unless it is UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError:
            raise Problem(INVALID_REQUEST, f"{self.name}: not UTF-8 text", field=self.name) from None


class _Reader:
    """The callbacks of the parser."""

    def __init__(self, max_parts: int) -> None:
        self.parts: list[Part] = []
        self.ended = False
        self._max_parts = max_parts
        self._header = b""
        self._value = b""
        self._disposition = b""

    def on_part_begin(self) -> None:
        if len(self.parts) >= self._max_parts:
            raise Problem(INVALID_REQUEST, f"more than {self._max_parts} parts")
        self.parts.append(Part())
        self._disposition = b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise Problem(MALFORMED_BODY, f"part {len(self.parts)} has no name")
        part = self.parts[-1]
        part.name = options[b"name"].decode(errors="replace")
        if b"filename" in options:
            part.filename = options[b"filename"].decode(errors="replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.parts[-1].data += data[start:end]

    def on_end(self) -> None:
        self.ended = True


async def read(content_type: str, body: AsyncIterator[bytes], *, max_parts: int) -> list[Part]:
    """All parts in the order sent. Raises Problem for a body that is not multipart or has too many parts."""
    _, options = parse_options_header(content_type)
    if not options.get(b"boundary"):
        raise Problem(MALFORMED_BODY, "multipart/form-data without a boundary")
    reader = _Reader(max_parts)
    names = ("on_part_begin", "on_part_data", "on_header_field", "on_header_value", "on_header_end")
    callbacks = {name: getattr(reader, name) for name in (*names, "on_headers_finished", "on_end")}
    try:
        parser = MultipartParser(options[b"boundary"], callbacks)  # type: ignore[arg-type]
        async for chunk in body:
            parser.write(chunk)
    except FormParserError as error:
        raise Problem(MALFORMED_BODY, f"not multipart/form-data: {error}") from None
    if not reader.ended:
        raise Problem(MALFORMED_BODY, "the multipart body ends before its last boundary")
    return reader.parts
