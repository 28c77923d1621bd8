"""The dashboard is made from its list of panels, and asks for metrics that exist."""

import json
import re

import pytest

from deploy import grafana
from tests.deploy.asked import unknown
from tests.deploy.conftest import Exported

PANELS = {panel.title: panel for row in grafana.ROWS for panel in row.panels}


def test_the_file_is_what_the_list_of_panels_makes() -> None:
    assert grafana.FILE.read_text() == grafana.text(), "renew it: python -m deploy.grafana"


@pytest.mark.parametrize("title", PANELS)
def test_a_panel_asks_for_metrics_that_are_exported(title: str, exported: Exported) -> None:
    for expression in PANELS[title].curves.values():
        assert "lamanas_" in expression
        assert unknown(expression, exported) == []


def test_the_dashboard_shows_each_metric_that_is_exported(exported: Exported) -> None:
    shown = {
        metric
        for panel in PANELS.values()
        for expression in panel.curves.values()
        for metric in re.findall(r"lamanas_\w+", expression)
    }
    aside = {"lamanas_worker_heartbeat_age_seconds"}  # of fresh ones only: it is always less than 5 s
    missing = {
        metric
        for metric in exported
        if metric.startswith("lamanas_") and re.sub(r"_(sum|count)$", "_bucket", metric) not in shown
    }
    assert {metric for metric in missing if not metric.endswith("_created")} == aside


def test_panels_have_places_of_their_own_on_the_grid() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(grafana.FILE.read_text())["panels"]:
        place = panel["gridPos"]
        own = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not own & taken, panel["title"]
        assert place["x"] + place["w"] <= grafana.COLUMNS
        taken |= own
