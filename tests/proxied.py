"""A real nginx with TLS in front of the service, configured as docs/operations.md says."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli import tether
from tests.conftest import ROOT, free_port
from tests.pages import blocks
from tests.waiting import until_listening

# Everything that is not about the service: one process in the foreground, without files outside its folder.
MAIN = """
user root;  # as which it runs only where it is started as root: the folder belongs to that user
daemon off;
pid {folder}/pid;
error_log stderr;
worker_processes 1;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  ssl_certificate {folder}/certificate.pem;
  ssl_certificate_key {folder}/key.pem;
  server {{
    listen 127.0.0.1:{port} ssl;
{location}
  }}
}}
"""


@dataclass(frozen=True)
class Proxy:
    """``url`` of the service behind it, with a slash at the end; ``certificate``: the file to trust."""

    url: str
    certificate: Path


def certified(folder: Path) -> Path:
    """The file of a new certificate for localhost, beside which is its ``key.pem``."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    request = [_program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    subprocess.run([*request, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate


@contextmanager
def proxied(app: str, folder: Path) -> Iterator[Proxy]:
    """nginx at https://localhost:PORT/lamanas/ in front of the app at this URL."""
    certificate = certified(folder)
    (location,) = blocks((ROOT / "docs" / "operations.md").read_text(), "nginx")
    assert "http://127.0.0.1:8000/" in location
    port = free_port()
    location = location.replace("http://127.0.0.1:8000/", f"{app}/")
    configuration = folder / "nginx.conf"
    configuration.write_text(MAIN.format(folder=folder, port=port, location=location))
    command = [_program("nginx"), "-p", str(folder), "-e", "stderr", "-c", str(configuration)]
    process = subprocess.Popen(tether.command(os.getpid(), command), start_new_session=True)
    try:
        until_listening(process, port)
        yield Proxy(f"https://localhost:{port}/lamanas/", certificate)
    finally:
        process.terminate()
        process.wait()


def _program(name: str) -> str:
    """Its path. (Debian has servers in /usr/sbin, which is not on every user's PATH.)"""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.fail(f"{name} is missing: apt-get install {name}")
    return found
