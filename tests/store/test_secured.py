"""The store and Celery over TLS, with a certificate that is verified and a user with the documented rights."""

import asyncio
import os
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from kombu.exceptions import OperationalError

from app.queue import ask_for_shipped, celery_app
from app.settings import Settings
from app.store import keys, suitability
from app.store.clients import Store, SyncStore
from app.store.errors import UNAVAILABLE
from cli import private_redis, tether
from tests.conftest import free_port
from tests.proxied import certified
from tests.replicated import PASSWORD, documented, node
from tests.store.submitting import DRAWINGS, create
from tests.store.test_async_store import with_store
from tests.waiting import until_listening

RIGHTS = documented("redis.md", "ACL SETUSER lamanas on >PASSWORD ")
LINES = ("appendonly yes", "appendfsync always", f"user lamanas on >{PASSWORD} {RIGHTS}")


@contextmanager
def terminated(folder: Path, certificate: Path) -> Iterator[int]:
    """The port of TLS in front of a server that may have none itself."""
    server = node(folder / "server", *LINES)
    server.start()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, certificate.parent / "key.pem")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        both = pass_on(reader, inner_writer), pass_on(inner_reader, writer)
        await asyncio.gather(*both, return_exceptions=True)

    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(asyncio.start_server(accept, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.kill()


@contextmanager
def native(folder: Path, certificate: Path) -> Iterator[int]:
    """The TLS port of the server itself, if it has TLS."""
    port = free_port()
    files = (f"tls-cert-file {certificate}", f"tls-key-file {certificate.parent}/key.pem", "tls-auth-clients no")
    server = node(folder / "server", *LINES, f"tls-port {port}", *files)
    command = [str(private_redis.find_binary()), str(server.folder / "redis.conf")]
    process = subprocess.Popen(tether.command(os.getpid(), command), stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        try:
            until_listening(process, port)
        except AssertionError:
            pytest.skip(f"{command[0]} was built without TLS")
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("serving", [terminated, native])
def test_a_server_with_tls_is_used_if_its_certificate_is_trusted(
    serving: Callable[[Path, Path], AbstractContextManager[int]], short_folder: Path
) -> None:
    certificate = certified(short_folder)
    with serving(short_folder, certificate) as port:
        url = f"rediss://lamanas:{PASSWORD}@localhost:{port}"
        trusting = f"{url}/1?ssl_ca_certs={certificate}"
        uses(Settings(_env_file=None, redis_url=trusting, data_dir=short_folder / "data"))  # type: ignore[call-arg]
        # With another database: Kombu would use a connection again that differs only in what it trusts.
        refuses(Settings(_env_file=None, redis_url=f"{url}/2", data_dir=short_folder / "data"))  # type: ignore[call-arg]


def uses(settings: Settings) -> None:
    assert [each.state for each in suitability.examine(settings).findings] == ["unseen"]
    store = SyncStore.open(settings)
    store.models.register("0123456789abcdef", b"weights", DRAWINGS)

    async def body(running: Store) -> None:
        record, _ = await create(running)
        assert store.claims.claim("episode", record.id, "one") is not None

    with_store(settings, body)
    ask_for_shipped(celery_app(settings))
    assert store.claims._redis.llen(keys.broker_queue("episode")) == 2  # with the one that the episode sent
    store.close()


def refuses(settings: Settings) -> None:
    store = SyncStore.open(settings)
    with pytest.raises(UNAVAILABLE, match="certificate verify failed"):
        store.ping()
    store.close()

    async def body(running: Store) -> None:
        with pytest.raises(UNAVAILABLE):
            await running.ping()

    with_store(settings, body)
    with pytest.raises(OperationalError, match="certificate verify failed"):
        ask_for_shipped(celery_app(settings))
