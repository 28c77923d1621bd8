"""The tables of finished runs as Markdown."""

import json
from operator import itemgetter
from pathlib import Path
from statistics import stdev
from typing import Any

from lamanas_core.measure.metrics import mean_and_interval
from lamanas_core.measure.table1.rows import PAPER_TABLE, Row, rows, variants

# Student's t for a 95 % confidence interval, by the number of values.
STUDENT = {2: 12.71, 3: 4.303, 4: 3.182, 5: 2.776}


def table(out: Path) -> str:
    """A Markdown table of all JSON files in ``out``, beside the paper's numbers.

    The first interval is the 95 % confidence interval over the episodes of all runs of a row, thus for these models;
    the second that over the seeds (Student's t), thus for other trainings as well.
    """
    finished = _finished(out)
    lines = [
        "| row | runs | test accuracy | over seeds | by seed | train accuracy | class means | mean parameters "
        "| direction changed | slope without label | paper: test | train | parameters |",
        "|" + " --- |" * 13,
    ]
    lines += ["| " + " | ".join(_cells(row, finished[row.name])) + " |" for row in rows() if row.name in finished]
    return "\n".join(lines)


def variants_table(out: Path, table1: Path) -> str:
    """A Markdown table of the variants whose JSON files are in ``out``: their accuracy, and its difference from that of
    rows of Table 1, whose JSON files are in ``table1``, on the same episodes of the seeds that both have.

    The intervals are 95 % confidence intervals over episodes, thus for these models.
    """
    finished, others = _finished(out), _finished(table1)
    lines = [
        "| variant | runs | test accuracy | minus no_meta_training | minus cross_entropy | class means "
        "| slope without label |",
        "|" + " --- |" * 7,
    ]
    for row in variants():
        if row.name in finished:
            own = finished[row.name]
            cells = (
                row.name,
                _runs(own),
                _accuracy(own),
                _difference(own, others.get("no_meta_training", [])),
                _difference(own, others.get("cross_entropy", [])),
                f"{100 * _mean_of(own, 'prototype_accuracy'):.1f}",
                _of_each(own, "slope_without_label"),
            )
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _finished(out: Path) -> dict[str, list[dict[str, Any]]]:
    """The content of the JSON files in ``out`` by the name of their row, in the order of seeds."""
    finished: dict[str, list[dict[str, Any]]] = {}
    for document in sorted(
        (json.loads(path.read_text("utf-8")) for path in out.glob("*.json")), key=itemgetter("seed")
    ):
        finished.setdefault(document["row"], []).append(document)
    return finished


def _difference(own: list[dict[str, Any]], other: list[dict[str, Any]]) -> str:
    """The mean difference of the accuracies on the same episodes, with its 95 % confidence interval, in points; "-" if
    no seed is in both.
    """
    of_seed = {document["seed"]: document["accuracies"] for document in other}
    common = [document for document in own if document["seed"] in of_seed]
    if not common:
        return "-"
    pairs = [pair for one in common for pair in zip(one["accuracies"], of_seed[one["seed"]], strict=True)]
    mean, half = mean_and_interval([mine - its for mine, its in pairs])
    seeds = "" if len(common) == len(own) else f" ({len(common)} of {len(own)} seeds)"
    return f"{100 * mean:+.1f} ± {100 * half:.1f}{seeds}"


def _runs(own: list[dict[str, Any]]) -> str:
    return f"{len(own)} x {len(own[0]['accuracies'])} episodes"


def _accuracy(own: list[dict[str, Any]]) -> str:
    mean, half = mean_and_interval([value for document in own for value in document["accuracies"]])
    return f"{100 * mean:.1f} ± {100 * half:.1f}"


def _cells(row: Row, own: list[dict[str, Any]]) -> tuple[str, ...]:
    kept = sum(document["parameters_kept"] for document in own) / len(own)
    printed = PAPER_TABLE.get(row.name)
    return (
        row.name,
        _runs(own),
        _accuracy(own),
        _over_seeds([document["accuracy"] for document in own]),
        ", ".join(f"{100 * document['accuracy']:.1f}" for document in own),
        f"{100 * _mean_of(own, 'train_accuracy'):.1f}",
        f"{100 * _mean_of(own, 'prototype_accuracy'):.1f}",
        f"{kept:,.0f} of {own[0]['parameters_total']:,}",
        _of_each(own, "direction_changed"),
        _of_each(own, "slope_without_label"),
        *(("-",) * 3 if printed is None else (f"{printed.test}", f"{printed.train}", f"{printed.parameters:,}")),
    )


def _of_each(own: list[dict[str, Any]], name: str) -> str:
    """The values of all runs, with "-" for those that have none; one "-" if none has."""
    values = [document.get(name) for document in own]
    if not any(value is not None for value in values):
        return "-"
    return ", ".join("-" if value is None else f"{value:.2f}" for value in values)


def _mean_of(own: list[dict[str, Any]], name: str) -> float:
    return sum(float(document[name]) for document in own) / len(own)


def _over_seeds(accuracies: list[float]) -> str:
    """The half-width of the 95 % confidence interval over seeds, in %; "-" for a single seed."""
    if len(accuracies) not in STUDENT:
        return "-"
    return f"± {100 * STUDENT[len(accuracies)] * stdev(accuracies) / len(accuracies) ** 0.5:.1f}"
