"""Celery over Redis, only to wake workers up: a message carries an id, and may be lost or delivered twice."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from celery import Celery
from kombu.entity import Queue
from redis.connection import parse_url

from app.settings import Sentinels, Settings
from app.store.connections import primary_options, sentinel_options
from app.store.keys import QUEUE_OF, Kind, broker_queue

TASKS = {"episode": "lamanas.adapt", "training": "lamanas.train"}
REGISTER_SHIPPED = "lamanas.register_shipped"


def broker_url(store_url: str) -> str:
    """A Redis URL as Kombu needs it: Kombu has its own scheme for sockets, and by default verifies no certificate."""
    parts = urlsplit(store_url)
    if parts.scheme == "unix":
        return _socket_url(parse_url(store_url))  # type: ignore[no-untyped-call]
    if parts.scheme == "rediss" and "ssl_cert_reqs" not in parse_qs(parts.query):
        query = "&".join(filter(None, [parts.query, "ssl_cert_reqs=required"]))
        return urlunsplit(parts._replace(query=query))
    return store_url


def _socket_url(options: Mapping[str, Any]) -> str:
    user, password = (quote(options.get(name, ""), safe="") for name in ("username", "password"))
    credentials = f"{user}:{password}@" if user or password else ""
    return f"redis+socket://{credentials}{quote(options['path'])}?virtual_host={options.get('db', 0)}"


def _sentinels_url(settings: Settings, sentinels: Sentinels) -> str:
    """Each sentinel with the credentials and the database of the primary: Kombu takes them from any of them."""
    parts = urlsplit(settings.store_url)
    signing_in = parts.netloc.rpartition("@")[0]
    database = primary_options(settings).get("db", 0)
    return ";".join(
        f"sentinel://{signing_in}{'@' if signing_in else ''}{_bracketed(host)}:{port}/{database}"
        for host, port in sentinels.addresses
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _through_sentinels(settings: Settings, sentinels: Sentinels) -> dict[str, Any]:
    """What Celery needs to ask them for the primary."""
    secured = {name: value for name, value in primary_options(settings).items() if name.startswith("ssl_")}
    return {
        "broker_url": _sentinels_url(settings, sentinels),
        "broker_use_ssl": settings.store_url.startswith("rediss") and {"ssl_cert_reqs": "required"} | secured,
        "broker_transport_options": {
            "master_name": settings.primary,
            "sentinel_kwargs": sentinel_options(settings),
        },
    }


def celery_app(settings: Settings) -> Celery:
    """A Celery application; docs/processes.md explains what these settings ensure."""
    app = Celery("lamanas", broker=broker_url(settings.store_url), backend=None, set_as_current=False)
    if settings.sentinels is not None:
        app.conf.update(_through_sentinels(settings, settings.sentinels))
    app.conf.update(
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=app.conf.broker_transport_options
        | {
            # A message is acknowledged when its task starts, so that a short timeout is enough: it only brings back the
            # messages of workers that died after fetching them and before starting the task.
            "visibility_timeout": 5,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 5,
            "health_check_interval": 5,
            "socket_timeout": 5,
        },
        worker_pool_start_method="spawn",  # CUDA cannot be used after a fork
        worker_proc_alive_timeout=60,  # importing torch takes longer than the default of 4 s on a busy machine
        worker_disable_prefetch=True,  # a message is fetched only when a pool process is free
        # Messages that are fetched and not acknowledged are not counted: if an acknowledgement is lost because Redis
        # dies, the count would never return to zero and the worker would fetch no other message.
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
    """Sends one wake-up. Does not retry; raises whatever the broker raises."""
    queue = broker_queue(kind)
    options: dict[str, Any] = {"queue": queue, "retry": False, "ignore_result": True}
    app.send_task(TASKS[kind], args=[id], **options)


def ask_for_shipped(app: Celery) -> None:
    """Makes an adapt worker register the shipped model. Does not retry; raises whatever the broker raises."""
    app.send_task(REGISTER_SHIPPED, queue=broker_queue("episode"), retry=False, ignore_result=True)


def _queue(name: str) -> Queue:
    return Queue(name, exchange="lamanas", routing_key=name)  # type: ignore[no-untyped-call]
