"""The app in this process, whose worker the test simulates."""

from tests.app.conftest import anonymous, client, server, settings, sync_store, token, worker  # noqa: F401
