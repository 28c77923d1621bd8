"""Writes deploy/grafana.json, a dashboard for Grafana, from the list of its panels: ``python -m deploy.grafana``."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
COLUMNS, WIDTH, HEIGHT = 24, 8, 8


@dataclass(frozen=True)
class Panel:
    """Curves over time. ``curves``: an expression for Prometheus by its legend, which may name labels (``{{queue}}``).
    ``unit``: as Grafana names them."""

    title: str
    curves: dict[str, str]
    unit: str = "short"


@dataclass(frozen=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


def _rate(metric: str, by: str = "") -> str:
    return f"sum{f' by ({by})' if by else ''} (rate({metric}[$__rate_interval]))"


def _quantile(quantile: float, metric: str, matchers: str = "") -> str:
    return f"histogram_quantile({quantile}, {_rate(f'{metric}_bucket{matchers}', 'le')})"


def _quantiles(metric: str, matchers: str = "") -> dict[str, str]:
    return {f"{name} %": _quantile(float(name) / 100, metric, matchers) for name in ("50", "95", "99")}


# What each app counts is added up (sum); what is the same from all of them is read once.
ROWS = (
    Row(
        "At a glance",
        (
            Panel("Redis responds", {"Redis": "lamanas_redis_up"}),
            Panel("Workers alive", {"{{queue}}": "lamanas_workers"}),
            Panel(
                "Jobs that ended, per second",
                {"{{kind}} {{outcome}}": _rate("lamanas_jobs_ended_total", "kind, outcome")},
                "ops",
            ),
        ),
    ),
    Row(
        "Episodes",
        (
            Panel(
                "Waiting and running",
                {
                    "{{queue}} waiting": "lamanas_queue_length",
                    "{{queue}} running": "lamanas_running",
                    "limit": "lamanas_queue_limit",
                },
            ),
            Panel("Age of the oldest waiting job", {"{{queue}}": "lamanas_oldest_waiting_seconds"}, "s"),
            Panel("Time in the queue", _quantiles("lamanas_queue_wait_seconds"), "s"),
            Panel("Time of an adaptation", _quantiles("lamanas_adapt_seconds"), "s"),
            Panel("Time of a step", _quantiles("lamanas_adapt_step_seconds"), "s"),
            Panel(
                "Attempts that are repeated, per hour",
                {"{{kind}} {{reason}}": "sum by (kind, reason) (increase(lamanas_retries_total[1h]))"},
            ),
        ),
    ),
    Row(
        "Requests",
        (
            Panel("Requests by status", {"{{status}}": _rate("lamanas_http_requests_total", "status")}, "reqps"),
            Panel(
                "Requests by route",
                {"{{method}} {{route}}": _rate("lamanas_http_requests_total", "method, route")},
                "reqps",
            ),
            Panel(
                "Time to the start of a response",
                {
                    "predict, 95 %": _quantile(0.95, "lamanas_http_request_seconds", '{route="/predict"}'),
                    "episodes, 95 %": _quantile(0.95, "lamanas_http_request_seconds", '{route="/episodes"}'),
                },
                "s",
            ),
            Panel("Waiting for a decoding process", _quantiles("lamanas_decoding_wait_seconds"), "s"),
            Panel("Open event streams", {"{{instance}}": "sum by (instance) (lamanas_open_streams)"}),
            Panel(
                "Bytes in flight",
                {"{{instance}}": "lamanas_in_flight_bytes", "limit": "min(lamanas_in_flight_limit_bytes)"},
                "bytes",
            ),
        ),
    ),
    Row(
        "Predictions",
        (
            Panel("Images classified", {"{{model}}": _rate("lamanas_predictions_total", "model")}, "ops"),
            Panel(
                "Images of none of the classes",
                {
                    "{{model}}": _rate('lamanas_predictions_total{outcome="unknown"}', "model")
                    + " / "
                    + _rate('lamanas_predictions_total{outcome!="unjudged"}', "model")
                },
                "percentunit",
            ),
            Panel("Time in the classifier", _quantiles("lamanas_prediction_seconds"), "s"),
            Panel(
                "Classifiers found open",
                {
                    "hits": _rate('lamanas_classifier_cache_total{outcome="hit"}')
                    + " / "
                    + _rate("lamanas_classifier_cache_total")
                },
                "percentunit",
            ),
        ),
    ),
    Row(
        "Stores",
        (
            Panel("Redis' memory", {"used": "lamanas_store_bytes", "limit": "lamanas_store_limit_bytes"}, "bytes"),
            Panel(
                "Object store",
                {
                    "{{kind}}": "lamanas_object_bytes",
                    "limit": "lamanas_object_limit_bytes",
                    "limit of support sets": "0.75 * lamanas_object_limit_bytes",
                },
                "bytes",
            ),
            Panel(
                "Dropped classifiers and repeated adaptations, per hour",
                {
                    "dropped": "sum(increase(lamanas_classifiers_dropped_total[1h]))",
                    "adapted again: {{reason}}": "sum by (reason) (increase(lamanas_readaptations_total[1h]))",
                },
            ),
        ),
    ),
    Row(
        "Training",
        (
            Panel("Epochs", {"done": "lamanas_training_epoch", "in total": "lamanas_training_epochs"}),
            Panel("Loss", {"loss": "lamanas_training_loss"}),
            Panel("Accuracy", {"validation": "lamanas_training_validation_accuracy"}, "percentunit"),
        ),
    ),
)


def dashboard() -> dict[str, Any]:
    """The dashboard in Grafana's JSON model. The data source is chosen when it is imported."""
    panels: list[dict[str, Any]] = []
    y = 0
    for row in ROWS:
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        panels.append({"id": len(panels) + 1, "type": "row", "title": row.title, "collapsed": False, "gridPos": place})
        y += 1
        for number, panel in enumerate(row.panels):
            line, column = divmod(number, COLUMNS // WIDTH)
            place = {"x": column * WIDTH, "y": y + line * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place} | _curves(panel))
        y += HEIGHT * -(-len(row.panels) // (COLUMNS // WIDTH))
    return {
        "uid": "lamanas",
        "title": "LAMANAS",
        "tags": ["lamanas"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Data source", "type": "datasource", "query": "prometheus"}],
        },
        "panels": panels,
    }


def _curves(panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "type": "timeseries",
        "title": panel.title,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": source, "expr": expression, "legendFormat": legend}
            for number, (legend, expression) in enumerate(panel.curves.items())
        ],
    }


def text() -> str:
    """What the file holds."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    FILE.write_text(text())
