"""The settings of the service, read from the environment and from ``.env``."""

import hashlib
import ipaddress
import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lamanas_core.image_spec import MAX_PIXELS

# sun_path holds 108 bytes with its final NUL (unix(7)).
LONGEST_SOCKET_PATH = 107


# Names the folder in which app processes share their metrics; prometheus-client reads it when it is imported.
SHARED = "PROMETHEUS_MULTIPROC_DIR"
# By default `lamanas serve` starts at most this many app processes; each takes about 140 MB.
MAX_APPS = 4
# What a photo takes when it is decoded for the photo preset's meta-models.
PHOTO_BYTES = 3 * 224 * 224
RATE = re.compile(r"([1-9][0-9]{0,8})/(second|minute|hour)")
ORIGIN = re.compile(r"https?://[^\s/?#@*]+")
BUCKET = re.compile(r"(s3|gs|az)://[^\s/?#@]+(/[^\s?#]*)?")
SECONDS_OF = {"second": 1, "minute": 60, "hour": 3600}
SENTINEL_PORT = 26379


@dataclass(frozen=True)
class Rate:
    """This many requests in this many seconds; after a pause, all of them at once."""

    requests: int
    seconds: int

    @property
    def ms_per_request(self) -> float:
        return 1000 * self.seconds / self.requests


@dataclass(frozen=True)
class Sentinels:
    """Where the sentinels are, and the user and the password that they ask for; None where they ask for none."""

    addresses: tuple[tuple[str, int], ...]
    username: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, text: str) -> "Sentinels":
        """Of ``HOST:PORT,HOST:PORT,...``, with ``USER:PASSWORD@`` before the first. Raises ValueError."""
        signing_in, _, hosts = text.rpartition("@")
        user, _, password = signing_in.partition(":")
        addresses = tuple(cls._address(host.strip()) for host in hosts.split(","))
        return cls(addresses, unquote(user) or None, unquote(password) or None)

    @staticmethod
    def _address(text: str) -> tuple[str, int]:
        parts = urlsplit(f"//{text}")
        with suppress(ValueError):  # of the port
            if parts.hostname and parts.netloc == text:
                return parts.hostname, parts.port or SENTINEL_PORT
        raise ValueError("must be like HOST:26379,HOST:26379,HOST:26379")


class Settings(BaseSettings):
    """Read from the environment (prefix ``LAMANAS_``; ``REDIS_URL`` without it) and from ``.env``.

    Raises ``pydantic.ValidationError``, which names the setting, for an invalid value.
    """

    model_config = SettingsConfigDict(
        env_prefix="LAMANAS_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535)
    data_dir: Path = Path("data")
    redis_url: str | None = Field(default=None, validation_alias="REDIS_URL")
    redis_password_file: Path | None = None
    # Those of a primary that REDIS_URL names by its name there.
    redis_sentinels: str | None = None
    # Whether to start with a Redis that may lose what was accepted; see app/store/suitability.py.
    redis_may_lose_data: bool = False
    # The bucket of the object store; None: a folder of the data directory.
    objects: str | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"

    episode_ttl_seconds: int = Field(default=86_400, ge=1)
    max_request_bytes: int = Field(default=96 * 2**20, ge=1024)
    max_images: int = Field(default=1000, ge=2)
    max_classes: int = Field(default=50, ge=2)
    max_shots: int = Field(default=50, ge=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    max_queue: int = Field(default=1000, ge=1)
    max_unfinished: int = Field(default=500, ge=1)
    max_store_bytes: int = Field(default=512 * 2**20, ge=16 * 2**20)
    max_object_bytes: int = Field(default=10 * 2**30, ge=16 * 2**20)
    max_bytes_in_flight: int = Field(default=512 * 2**20, ge=2048)
    rate_limit: str | None = None
    max_streams: int = Field(default=256, ge=1)
    # How long ended runs with their checkpoints, and revoked keys, are kept.
    keep_days: int = Field(default=90, ge=1)
    predictor_cache: int = Field(default=256, ge=1)

    app_processes: int = Field(default_factory=lambda: min(MAX_APPS, len(os.sched_getaffinity(0))), ge=1)
    adapt_processes: int = Field(default=1, ge=1)
    adapt_threads: int = Field(default=1, ge=1)
    # How many episodes of equal shape a worker with a GPU adapts in one batch.
    adapt_batch: int = Field(default=1, ge=1)
    # How long an adaptation, and an epoch of a training run, may take; see workers/time_limit.py.
    adapt_seconds: int = Field(default=600, ge=1)
    epoch_seconds: int = Field(default=3600, ge=1)
    train_threads: int = Field(default_factory=lambda: max(1, (os.cpu_count() or 2) - 1), ge=1)
    drain_seconds: int = Field(default=30, ge=1)
    # Longer than proxies keep unused connections (60 s), so that none sends a request on one that is being closed.
    keep_alive_seconds: int = Field(default=75, ge=1)
    # Whether metrics need no key, also beyond loopback.
    open_metrics: bool = False
    # Sites whose pages may call the API with a token: origins, or "*" for all.
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()

    @field_validator("redis_url")
    @classmethod
    def _usable_url(cls, value: str | None) -> str | None:
        if not value:
            return None
        from redis.connection import parse_url  # imported here, since commands without Redis should not wait for it

        try:
            named = parse_url(value)  # type: ignore[no-untyped-call]
        except ValueError as error:
            raise ValueError(f"REDIS_URL cannot be used: {error}") from error
        parts = urlsplit(value)
        if parts.scheme == "unix" and (parts.hostname or parts.fragment or "path" not in named):
            raise ValueError("REDIS_URL must name a socket like unix:///run/redis.sock, with # as %23 and ? as %3F")
        return value

    @field_validator("redis_sentinels")
    @classmethod
    def _usable_sentinels(cls, value: str | None) -> str | None:
        if value:
            Sentinels.parse(value)
        return value or None

    @field_validator("objects")
    @classmethod
    def _known_store(cls, value: str | None) -> str | None:
        if value and not BUCKET.fullmatch(value):
            raise ValueError("must be like s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX")
        return value or None

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().resolve()

    @model_validator(mode="after")
    def _usable_password(self) -> "Settings":
        if self.redis_password_file is None:
            return self
        if not self.redis_url:
            raise ValueError(
                "LAMANAS_REDIS_PASSWORD_FILE is set, but REDIS_URL is not: the password is for an external server"
            )
        try:
            self.redis_password_file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"LAMANAS_REDIS_PASSWORD_FILE cannot be read: {error}") from error
        return self

    @model_validator(mode="after")
    def _named_primary(self) -> "Settings":
        if self.redis_sentinels is None:
            return self
        parts = urlsplit(self.redis_url or "")
        host = parts.netloc.rpartition("@")[2]
        if parts.scheme not in ("redis", "rediss") or not host or ":" in host:
            raise ValueError(
                "LAMANAS_REDIS_SENTINELS is set: REDIS_URL must name the primary by its name at the sentinels, without "
                "a port, like redis://mymaster/0"
            )
        return self

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (part.strip() for part in value.split(",")))) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _known_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value != ("*",) and not all(ORIGIN.fullmatch(origin) for origin in value):
            raise ValueError("must be *, or origins like https://app.example.org, separated by commas")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _known_rate(cls, value: str | None) -> str | None:
        if value and not RATE.fullmatch(value):
            raise ValueError("must be like 20/second, 600/minute or 5000/hour")
        return value or None

    @model_validator(mode="after")
    def _room_for_a_request(self) -> "Settings":
        least = 2 * (self.max_request_bytes + self.max_images * PHOTO_BYTES)
        if self.max_bytes_in_flight < least:
            raise ValueError(
                f"LAMANAS_MAX_BYTES_IN_FLIGHT must be at least {least}: a key may use half of it, and a request take "
                f"LAMANAS_MAX_REQUEST_BYTES and {PHOTO_BYTES} bytes for each of LAMANAS_MAX_IMAGES"
            )
        return self

    @property
    def rate(self) -> Rate | None:
        """How many requests a key may send; None: no limit."""
        found = RATE.fullmatch(self.rate_limit or "")
        return Rate(int(found[1]), SECONDS_OF[found[2]]) if found else None

    @property
    def embedded(self) -> bool:
        """Whether this installation runs its own private Redis."""
        return self.redis_url is None

    @property
    def sentinels(self) -> Sentinels | None:
        """None where ``store_url`` is the address of the server itself."""
        return Sentinels.parse(self.redis_sentinels) if self.redis_sentinels else None

    @property
    def primary(self) -> str:
        """The name of the primary at the sentinels, in their case."""
        return urlsplit(self.store_url).netloc.rpartition("@")[2]

    @property
    def loopback(self) -> bool:
        """Whether the app accepts connections from this machine only."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def admin_token_file(self) -> Path:
        return self.data_dir / "admin-token"

    @property
    def datasets_dir(self) -> Path:
        return self.data_dir / "datasets"

    @property
    def unpacked_datasets_dir(self) -> Path:
        """The folder in which workers unpack data sets that are in the object store."""
        return self.data_dir / "unpacked-datasets"

    @property
    def runs_dir(self) -> Path:
        return self.data_dir / "runs"

    @property
    def objects_dir(self) -> Path:
        """The folder of the object store, unless it is a bucket."""
        return self.data_dir / "objects"

    @property
    def metrics_dir(self) -> Path:
        """The folder in which the app processes share their metrics."""
        return self.data_dir / "metrics"

    @property
    def redis_socket(self) -> Path:
        """The socket of the private Redis: in the data directory, or, if that path is too long for a socket, in a
        directory of this user that is named after a hash of the data directory."""
        inside = self.data_dir / "redis.sock"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
            return inside
        name = f"lamanas-{os.getuid()}-{hashlib.sha256(os.fsencode(self.data_dir)).hexdigest()[:16]}"
        return Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / name / "redis.sock"

    @cached_property
    def store_url(self) -> str:
        """The URL that clients connect to Redis with (by app/store/connections.py). It includes the password: never
        print it."""
        if self.redis_url is None:
            return f"unix://{quote(str(self.redis_socket))}"
        if self.redis_password_file is None:
            return self.redis_url
        password = self.redis_password_file.read_text().strip()
        parts = urlsplit(self.redis_url)
        named, _, host = parts.netloc.rpartition("@")
        user = named.partition(":")[0]
        return urlunsplit(parts._replace(netloc=f"{user}:{quote(password, safe='')}@{host}"))
