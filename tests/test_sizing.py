"""The memory limits of docker-compose.yml suffice for what the settings allow, as docs/operations.md reckons."""

import re
from typing import Any

import pytest
import yaml

from app.images import pool, sandbox
from app.settings import Settings
from tests.conftest import ROOT

MIB = 2**20
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
TMP = 64


def settings_of(service: str) -> Settings:
    """The settings in this container: the defaults, but for what its environment says."""
    environment = SERVICES[service].get("environment", {})
    named = {name.removeprefix("LAMANAS_").lower(): value for name, value in environment.items()}
    changed = {name: value for name, value in named.items() if name in ("max_store_bytes", "max_bytes_in_flight")}
    return Settings(_env_file=None, redis_url=None, **changed)  # type: ignore[call-arg]


def redis(settings: Settings) -> float:
    return 2 * settings.max_store_bytes / MIB + 256


def app(settings: Settings) -> float:
    decoding = 70 + (sandbox.BYTES_BESIDE + sandbox.BYTES_PER_PIXEL * settings.max_pixels) / MIB
    in_flight = 3 * settings.max_bytes_in_flight / MIB
    return 140 + pool.PROCESSES * decoding + in_flight + 1.8 * settings.predictor_cache + TMP


def adapt(settings: Settings) -> float:
    return 150 + 1024 * settings.adapt_processes + TMP


def limit(service: str) -> int:
    """The memory limit in MiB."""
    number, unit = re.fullmatch(r"(\d+)([mg])", SERVICES[service]["mem_limit"]).groups()  # type: ignore[union-attr]
    return int(number) * {"m": 1, "g": 1024}[unit]


@pytest.mark.parametrize("needs", [redis, app, adapt], ids=lambda needs: needs.__name__)
def test_a_container_has_the_memory_that_its_settings_allow(needs: Any) -> None:
    service = needs.__name__
    needed = needs(settings_of(service))
    assert needed <= limit(service)
    row = next(line for line in (ROOT / "docs/operations.md").read_text().splitlines() if f"| `{service}` |" in line)
    assert row.endswith(f"= {needed:.0f} of {limit(service)} |")


@pytest.mark.parametrize("service", ["app", "adapt", "train"])
def test_temporary_files_are_limited(service: str) -> None:
    assert SERVICES[service]["tmpfs"] == [f"/tmp:size={TMP}m"]  # noqa: S108
