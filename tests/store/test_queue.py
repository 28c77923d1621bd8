"""Celery's broker is the Redis of the store, for every kind of URL."""

import ssl
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis

from app.queue import broker_url, celery_app, wake
from app.settings import Settings
from app.store import keys
from cli import private_redis
from tests.conftest import PrivateRedis, test_settings


def test_broker_is_the_same_redis() -> None:
    assert broker_url("unix:///run/redis.sock") == "redis+socket:///run/redis.sock?virtual_host=0"
    assert broker_url("redis://:secret@redis:6379/0") == "redis://:secret@redis:6379/0"


@pytest.mark.parametrize(
    ("query", "verified"),
    [
        ("", ssl.CERT_REQUIRED),
        ("?ssl_ca_certs=/ca.pem", ssl.CERT_REQUIRED),
        ("?ssl_cert_reqs=none", ssl.CERT_NONE),
    ],
)
def test_certificates_are_verified_unless_the_url_says_otherwise(query: str, verified: ssl.VerifyMode) -> None:
    settings = Settings(_env_file=None, redis_url=f"rediss://:secret@redis:6380/0{query}")  # type: ignore[call-arg]
    assert celery_app(settings).connection_for_write().ssl["ssl_cert_reqs"] == verified


@pytest.mark.parametrize("credentials", ["user:{}@", ":{}@", ""])
def test_socket_with_any_path_password_and_database_is_supported(short_folder: Path, credentials: str) -> None:
    private = test_settings(short_folder / "c# what? 100%25;ä")
    server = PrivateRedis(private, private_redis.start(private))
    try:
        password = "p@ss:#/;"  # noqa: S105
        server.client.acl_setuser(
            "user", enabled=True, passwords=[f"+{password}"], keys=["*"], channels=["*"], categories=["+@all"]
        )
        if credentials == ":{}@":
            server.client.config_set("requirepass", password)
        signing_in = credentials.format(quote(password, safe=""))
        url = private.store_url.replace("unix://", f"unix://{signing_in}", 1) + "?db=3"
        app = celery_app(Settings(_env_file=None, redis_url=url))  # type: ignore[call-arg]
        wake(app, "episode", "an-id")
        app.close()
        assert Redis.from_url(url).llen(keys.broker_queue("episode")) == 1
    finally:
        server.stop()


def test_each_sentinel_is_named_with_what_the_primary_asks_for() -> None:
    """Kombu takes the primary's credentials from whichever it asks."""
    settings = Settings(
        _env_file=None,  # type: ignore[call-arg]
        redis_url="rediss://user:p%2Fq@My_Primary/3?ssl_ca_certs=/ca.pem",
        redis_sentinels="other:secret@one,[::1]:5",
    )
    connection = celery_app(settings).connection_for_write()
    assert connection.alt == ["sentinel://user:p%2Fq@one:26379/3", "sentinel://user:p%2Fq@[::1]:5/3"]
    for _ in connection.alt:
        assert (connection.userid, connection.password, connection.virtual_host) == ("user", "p/q", "3")
        assert connection.ssl == {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca.pem"}
        connection.maybe_switch_next()
    options = connection.transport_options
    assert options["master_name"] == "My_Primary"
    asked_with = {"username": "other", "password": "secret", "ssl": True, "ssl_ca_certs": "/ca.pem"}
    assert asked_with.items() <= options["sentinel_kwargs"].items()
    assert options["visibility_timeout"] == 5  # as without sentinels
