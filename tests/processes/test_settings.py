"""Settings are read from the environment, and an invalid value is refused by name."""

import os
from pathlib import Path
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from redis.connection import parse_url

from app.settings import Sentinels, Settings
from tests.conftest import test_settings


def from_environment(monkeypatch: pytest.MonkeyPatch, folder: Path, **variables: str) -> Settings:
    for name in list(os.environ):
        if name.startswith(("LAMANAS_", "REDIS_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)
    return Settings()


def test_defaults_are_a_private_redis_and_loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = from_environment(monkeypatch, tmp_path)
    assert settings.embedded
    assert settings.loopback
    assert settings.data_dir == tmp_path / "data"
    assert settings.store_url == f"unix://{tmp_path}/data/redis.sock"


def test_dotenv_is_read_and_the_environment_takes_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LAMANAS_PORT=8001\nLAMANAS_HOST=::1\nOTHER=1\n")
    settings = from_environment(monkeypatch, tmp_path, LAMANAS_PORT="8002")
    assert (settings.host, settings.port) == ("::1", 8002)


def test_empty_redis_url_means_the_private_redis(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert from_environment(monkeypatch, tmp_path, REDIS_URL="").embedded


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LAMANAS_PORT", "0"),
        ("LAMANAS_PORT", "70000"),
        ("LAMANAS_DEVICE", "tpu"),
        ("LAMANAS_MAX_QUEUE", "0"),
        ("REDIS_URL", "http://example.org"),
        ("LAMANAS_REDIS_PASSWORD_FILE", "/nowhere"),
    ],
)
def test_invalid_value_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        from_environment(monkeypatch, tmp_path, **{name: value})


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104
        ("::", False),
        ("example.org", False),
    ],
)
def test_loopback_addresses_are_recognised(tmp_path: Path, host: str, loopback: bool) -> None:
    assert test_settings(tmp_path, host=host).loopback == loopback


@pytest.mark.parametrize("user", ["", "one%40lamanas"])
@given(password=st.text(st.characters(blacklist_categories=["Cs", "Cc", "Zs", "Zl", "Zp"]), min_size=1))
def test_password_with_any_characters_is_used_with_the_user_of_the_url(
    tmp_path_factory: pytest.TempPathFactory, user: str, password: str
) -> None:
    file = tmp_path_factory.mktemp("secret") / "password"
    file.write_text(password + "\n")
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        redis_url=f"redis://{user}:old@redis:6379/0",
        redis_password_file=file,
    )
    parsed = parse_url(settings.store_url)  # type: ignore[no-untyped-call]
    assert (parsed["password"], parsed["host"], parsed["port"]) == (password, "redis", 6379)
    assert parsed.get("username") == (unquote(user) or None)


def test_unreadable_password_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="LAMANAS_REDIS_PASSWORD_FILE"):
        Settings(
            _env_file=None,  # type: ignore[call-arg]
            redis_url="redis://redis:6379/0",
            redis_password_file=tmp_path / "missing",
        )


@pytest.mark.parametrize(
    "url",
    [
        "example.org",
        "redis://localhost:abc",
        "redis://localhost:99999",
        "redis://[::1",
        "unix://",
        "unix://run/redis.sock",
        "unix:///c#/redis.sock",
        "unix:///run/redis.sock?db=first",
    ],
)
def test_invalid_redis_url_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str) -> None:
    with pytest.raises(ValidationError, match=r"REDIS_URL (must|cannot)"):
        from_environment(monkeypatch, tmp_path, REDIS_URL=url)


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("one,two:5,[::1]:6", Sentinels((("one", 26379), ("two", 5), ("::1", 6)))),
        ("user:p%40ss@one", Sentinels((("one", 26379),), "user", "p@ss")),
        (":p%3Ass@one, two", Sentinels((("one", 26379), ("two", 26379)), None, "p:ss")),
        ("", None),
    ],
)
def test_sentinels_are_read_with_what_they_ask_for(
    named: str, expected: Sentinels | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = from_environment(monkeypatch, tmp_path, REDIS_URL="redis://My_Primary/2", LAMANAS_REDIS_SENTINELS=named)
    assert found.sentinels == expected
    assert found.primary == "My_Primary"


@pytest.mark.parametrize(
    ("url", "sentinels", "words"),
    [
        ("redis://mymaster", "one,,two", "must be like HOST:26379,HOST:26379,HOST:26379"),
        ("redis://mymaster", "redis://one", "must be like"),
        ("redis://mymaster", "one:x", "must be like"),
        ("redis://mymaster", "one:99999", "must be like"),
        ("redis://one:6379", "one", "REDIS_URL must name the primary by its name at the sentinels, without a port"),
        ("unix:///run/redis.sock", "one", "REDIS_URL must name the primary"),
        ("", "one", "REDIS_URL must name the primary"),
    ],
)
def test_sentinels_that_cannot_be_asked_are_refused(
    url: str, sentinels: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError, match=words):
        from_environment(monkeypatch, tmp_path, REDIS_URL=url, LAMANAS_REDIS_SENTINELS=sentinels)
