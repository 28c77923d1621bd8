"""A real proxy with TLS in front of the service: nginx, configured as docs/operations.md says, or Caddy, as in the file
that docker-compose.scale.yml uses."""

import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli import tether
from tests.chaos.waiting import until
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


@contextmanager
def balanced(apps: Sequence[str], folder: Path) -> Iterator[Proxy]:
    """Caddy at https://localhost:PORT/, which distributes requests among the apps at these URLs."""
    port = free_port()
    configuration = (ROOT / "deploy" / "Caddyfile").read_text()
    upstreams = " ".join(app.removeprefix("http://") for app in apps)
    for pattern, ours in (
        (r"admin off", "admin off\n\tdefault_bind 127.0.0.1"),
        (r"http_port 8080", f"http_port {free_port()}"),
        (r"https_port 8443", f"https_port {port}"),
        # Containers have the same port at several addresses of one name, processes have several ports.
        (r"dynamic a \{[^}]*name app[^}]*port 8000[^}]*\}", f"to {upstreams}"),
    ):
        configuration, found = re.subn(pattern, ours, configuration, count=1)
        assert found, pattern
    file = folder / "Caddyfile"
    file.write_text(configuration)
    command = [_program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]
    environment = os.environ | {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    process = subprocess.Popen(tether.command(os.getpid(), command), env=environment, start_new_session=True)
    try:
        until_listening(process, port)
        certificate = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        until(lambda: _has_certificate(port, certificate), "Caddy has its certificate")
        yield Proxy(f"https://localhost:{port}/", certificate)
    finally:
        process.terminate()
        process.wait()


def _has_certificate(port: int, trusted: Path) -> bool:
    """Whether what listens on this port proves that it is localhost."""
    try:
        context = ssl.create_default_context(cafile=trusted)
        with socket.create_connection(("127.0.0.1", port), timeout=5) as plain:
            context.wrap_socket(plain, server_hostname="localhost").close()
    except OSError:
        return False
    return True


def _program(name: str) -> str:
    """Its path. (pip puts caddy beside Python; Debian has servers in /usr/sbin, which is not on every PATH.)"""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.fail(f"{name} is missing: make install-dev installs caddy, apt-get install {name} any other")
    return found
