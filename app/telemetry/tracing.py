"""OpenTelemetry traces. Nothing of OpenTelemetry is imported unless its environment variables name an endpoint.

The packages are installed by the extra ``tracing``. Everything else (headers, sampling, the service's name) is
configured by OpenTelemetry's own variables.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_tracer: Any = None


def set_up(process: str) -> None:
    """Call once in each process. Raises RuntimeError if an endpoint is set and the packages are not installed."""
    global _tracer
    if not any(os.environ.get(name) for name in ENDPOINTS) or _tracer is not None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        text = "OTEL_EXPORTER_OTLP_ENDPOINT is set; install requirements-tracing.txt, or the extra 'tracing'"
        raise RuntimeError(text) from error
    name = os.environ.get("OTEL_SERVICE_NAME", "lamanas")
    provider = TracerProvider(resource=Resource.create({"service.name": name, "lamanas.process": process}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=1000))
    _tracer = provider.get_tracer("lamanas")


@contextmanager
def span(name: str, parent: str | None = None, **attributes: str | int | float) -> Iterator[None]:
    """Traces the block as one span. ``parent``: a W3C traceparent that was received from another process."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": parent}) if parent else None
    with _tracer.start_as_current_span(name, context=context, attributes=attributes):
        yield


def current() -> str | None:
    """The W3C traceparent of the current span, to be passed to another process; None without tracing."""
    if _tracer is None:
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")
