"""The running service as a client sees it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.conftest import Service


@pytest.fixture(scope="session")
def client(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, headers=service.headers, timeout=120) as client:
        yield client
