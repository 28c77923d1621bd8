"""Celery over Redis, as a way to wake workers up: a message carries an id and may be lost or doubled."""

from typing import Any
from urllib.parse import urlencode, urlsplit

from celery import Celery
from kombu.entity import Queue

from app.settings import Settings
from app.store.keys import QUEUE_OF, Kind, broker_queue

TASKS = {"episode": "lamanas.adapt", "training": "lamanas.train"}


def broker_url(store_url: str) -> str:
    """Kombu's spelling of a Redis URL: sockets have a scheme of their own."""
    parts = urlsplit(store_url)
    if parts.scheme != "unix":
        return store_url
    return f"redis+socket://{parts.path}?{urlencode({'virtual_host': '0'})}"


def celery_app(settings: Settings) -> Celery:
    """A Celery application with the settings that were measured to hold (docs/processes.md)."""
    app = Celery("lamanas", broker=broker_url(settings.store_url), backend=None, set_as_current=False)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            # A message is acknowledged when its task starts, so a short time holds; it only brings back the messages
            # of workers that died between fetching and starting.
            "visibility_timeout": 5,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 5,
            "health_check_interval": 5,
            "socket_timeout": 5,
        },
        worker_pool_start_method="spawn",  # CUDA cannot be used after a fork
        worker_proc_alive_timeout=60,  # importing torch takes longer than the default of 4 s on a busy machine
        worker_disable_prefetch=True,  # a message is fetched when a pool process is free for it
        # No second count of what was fetched: a message whose acknowledgement is lost with Redis would stay in it, and
        # the worker would fetch no other.
        worker_prefetch_multiplier=0,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        task_queues=[_queue(broker_queue(kind)) for kind in QUEUE_OF],
        task_create_missing_queues=False,
    )
    return app


def wake(app: Celery, kind: Kind, id: str) -> None:
    """Sends one wake-up, or raises at once whatever the broker raised."""
    queue = broker_queue(kind)
    options: dict[str, Any] = {"queue": queue, "retry": False, "ignore_result": True}
    app.send_task(TASKS[kind], args=[id], **options)


def _queue(name: str) -> Queue:
    return Queue(name, exchange="lamanas", routing_key=name)  # type: ignore[no-untyped-call]
