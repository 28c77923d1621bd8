"""A running store, which commands find through the settings."""

import pytest

from app.settings import Settings
from tests.conftest import PrivateRedis


@pytest.fixture
def installation(redis_server: PrivateRedis, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("LAMANAS_DATA_DIR", str(redis_server.settings.data_dir))
    monkeypatch.delenv("REDIS_URL", raising=False)
    return redis_server.settings
