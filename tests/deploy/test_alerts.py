"""The alert rules fire when they should, ask for metrics that exist, and are explained in the runbook."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.deploy.asked import unknown
from tests.deploy.conftest import Exported
from tests.pages import blocks

FOLDER = ROOT / "deploy"
[GROUP] = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
RULES: dict[str, dict[str, Any]] = {rule["alert"]: rule for rule in GROUP["rules"]}
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()


def promtool(*arguments: str) -> None:
    """Raises AssertionError if it finds something wrong."""
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed; it is part of Prometheus")
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_fire_when_they_should() -> None:
    promtool("test", "rules", "alerts.test.yml")


def test_prometheus_accepts_its_configuration_and_the_rules() -> None:
    promtool("check", "config", "prometheus.yml")


def test_prometheus_accepts_what_the_page_about_kubernetes_shows(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    [shown] = [block for block in blocks(page, "yaml") if "scrape_configs" in block]
    token = tmp_path / "token"
    token.touch()
    file = tmp_path / "prometheus.yml"
    file.write_text(shown.replace("/etc/prometheus/lamanas-token", str(token)))
    assert [job["job_name"] for job in yaml.safe_load(shown)["scrape_configs"]] == ["lamanas-app", "lamanas"]
    promtool("check", "config", str(file))


def test_each_rule_has_a_test() -> None:
    text = (FOLDER / "alerts.test.yml").read_text()
    assert set(re.findall(r'alertname="(\w+)"', text)) == RULES.keys()


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_asks_for_metrics_that_are_exported(alert: str, exported: Exported) -> None:
    assert "lamanas" in RULES[alert]["expr"]
    assert unknown(RULES[alert]["expr"], exported) == []


@pytest.mark.parametrize("alert", RULES)
def test_a_rule_says_what_is_wrong_and_where_it_is_explained(alert: str) -> None:
    rule = RULES[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/runbook.md#{alert.lower()}"


def test_the_runbook_has_a_section_for_each_alert_and_no_other() -> None:
    sections = re.split(r"^### ", RUNBOOK, flags=re.MULTILINE)[1:]
    explained = {section.partition("\n")[0]: section for section in sections}
    assert list(explained) == list(RULES)
    for alert, section in explained.items():
        assert "**Do:**" in section, alert


def test_the_jobs_of_the_rules_are_those_that_prometheus_reads() -> None:
    read = {job["job_name"] for job in yaml.safe_load((FOLDER / "prometheus.yml").read_text())["scrape_configs"]}
    asked = {job for rule in RULES.values() for job in re.findall(r'job="([^"]*)"', rule["expr"])}
    assert asked <= read == {"lamanas", "lamanas-app"}
