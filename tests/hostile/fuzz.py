"""``make fuzz``: Schemathesis with all its checks over the API's description, against the real app.

Ends with ``fuzz: requests N, failed M``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.serving import Target, serving

CONFIG = Path(__file__).with_name("schemathesis.toml")


@dataclass(frozen=True)
class Outcome:
    requests: int
    failed: int
    report: str


def fuzz(target: Target, *options: str) -> Outcome:
    """Runs it to its end; what it says is in ``report``."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "report.json"
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            *("--config-file", str(CONFIG), "run", f"{target.url}/openapi.json"),
            *("--header", f"Authorization: Bearer {target.token}", "--checks", "all", "--continue-on-failure"),
            *("--request-timeout", "30", "--no-color", "--warnings", "off"),
            *("--report", "json", "--report-json-path", str(written)),
            *options,
        ]
        environment = {name: value for name, value in os.environ.items() if name != "SCHEMATHESIS_HOOKS"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        report = done.stdout + done.stderr
        found = json.loads(written.read_text()) if written.exists() else {}
    failed = len(found.get("failures", [])) + len(found.get("errors", []))
    return Outcome(_answered(target), failed if done.returncode == 0 else max(1, failed), report)


def _answered(target: Target) -> int:
    """How many requests the app counted, of all statuses."""
    with urllib.request.urlopen(f"{target.url}/metrics") as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("lamanas_http_requests_total"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=60, help="for each operation")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with serving() as target:
        outcome = fuzz(
            target, "--max-examples", str(given.examples), "--seed", str(given.seed), "--generation-database", "none"
        )
        print(outcome.report)
        print(f"peak memory of the app and its decoders: {target.peak_bytes() / 2**20:.0f} MB")
    print(f"fuzz: requests {outcome.requests}, failed {outcome.failed}")
    return int(outcome.failed > 0 or outcome.requests < 2000)


if __name__ == "__main__":
    sys.exit(main())
