"""A bucket with as much of S3's protocol as the object store uses, on loopback."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape, unescape

import pytest

NAME = "bucket"
LISTING = '<?xml version="1.0"?><ListBucketResult><IsTruncated>false</IsTruncated>{}</ListBucketResult>'
ENTRY = "<Contents><Key>{}</Key><LastModified>{}</LastModified><Size>{}</Size></Contents>"
NO_BUCKET = b"<Error><Code>NoSuchBucket</Code><Message>The specified bucket does not exist</Message></Error>"
MISSING = b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"


class Bucket(ThreadingHTTPServer):
    """``objects``: the bytes of each key, and when they were written. ``deletions``: requests that deleted some.
    ``answering``: cleared, requests hang; ``exists``: False, there is no such bucket."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Requests)
        self.objects: dict[str, tuple[bytes, datetime]] = {}
        self.answering = threading.Event()
        self.answering.set()
        self.exists = True
        self.deletions = 0


class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Bucket

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix(f"/{NAME}").removeprefix("/")

    def do_PUT(self) -> None:
        self.server.objects[self.key] = (self.rfile.read(int(self.headers["Content-Length"])), datetime.now(UTC))
        self.answer(200)

    def do_GET(self) -> None:
        if not self.key:
            self.answer(200, self.listing().encode())
        elif self.key in self.server.objects:
            self.answer(200, *self.server.objects[self.key])
        else:
            self.answer(404, MISSING)

    def do_POST(self) -> None:
        assert urlsplit(self.path).query == "delete"
        self.server.answering.wait()
        self.server.deletions += 1
        keys = re.findall(r"<Key>(.*?)</Key>", self.rfile.read(int(self.headers["Content-Length"])).decode())
        for key in keys:
            self.server.objects.pop(unescape(key), None)
        deleted = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
        self.answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def listing(self) -> str:
        prefix = parse_qs(urlsplit(self.path).query)["prefix"][0]
        found = [(key, *stored) for key, stored in sorted(self.server.objects.items()) if key.startswith(prefix)]
        return LISTING.format("".join(ENTRY.format(escape(key), at.isoformat(), len(data)) for key, data, at in found))

    def answer(self, status: int, body: bytes = b"", at: datetime | None = None) -> None:
        self.server.answering.wait()
        if not self.server.exists:
            status, body = 404, NO_BUCKET
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", format_datetime(at or datetime.now(UTC), usegmt=True))
        self.end_headers()
        self.wfile.write(body)

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client did not wait for the answer
            super().handle()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    """A bucket to which the environment points."""
    bucket = Bucket()
    thread = threading.Thread(target=bucket.serve_forever)
    thread.start()
    for name, value in {
        "AWS_ENDPOINT": f"http://127.0.0.1:{bucket.server_port}",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "here",
    }.items():
        monkeypatch.setenv(name, value)
    try:
        yield bucket
    finally:
        bucket.answering.set()
        bucket.shutdown()
        thread.join()
        bucket.server_close()
