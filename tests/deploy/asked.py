"""Which metrics an expression for Prometheus asks for."""

import re

_SELECTOR = re.compile(r"\b(lamanas_\w+)(?:\{([^}]*)\})?")
_EQUAL = re.compile(r'(\w+)="([^"]*)"')
# Counted by each app when it happens: until then, there is no sample that has them.
BY_EVENT = {
    "lamanas_http_requests_total",
    "lamanas_http_request_seconds_bucket",
    "lamanas_predictions_total",
    "lamanas_classifier_cache_total",
}


def unknown(expression: str, exported: dict[str, dict[str, set[str]]]) -> list[str]:
    """What the expression asks for and no app exports: metrics, and labels with values that they do not have."""
    found = []
    for metric, labels in _SELECTOR.findall(expression):
        if metric not in exported:
            found.append(metric)
        elif metric not in BY_EVENT:
            found += [
                f"{metric}{{{label}={value}}}"
                for label, value in _EQUAL.findall(labels)
                if value not in exported[metric].get(label, ())
            ]
    return found
