"""Generates load: prepared requests, sent by ``wrk`` over a fixed number of connections."""

import json
import shutil
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# Reads requests (path, tab, body) from a file, one per line, sends them cyclically, and prints one line of JSON.
SCRIPT = """
local requests, at = {}, 0
function init(args)
  local headers = {["Authorization"] = "Bearer " .. args[2], ["Content-Type"] = "application/json"}
  for line in io.lines(args[1]) do
    local path, body = line:match("^(.-)\\t(.*)$")
    local method = body == "" and "GET" or "POST"
    requests[#requests + 1] = wrk.format(method, path, headers, body ~= "" and body or nil)
  end
end
function request()
  at = at % #requests + 1
  return requests[at]
end
function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "refused": %d, "broken": %d}\\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


class LoadError(RuntimeError):
    """The load could not be generated, or requests failed."""


def program() -> str:
    """The path of wrk. Raises LoadError if it is not installed."""
    found = shutil.which("wrk")
    if found is None:
        raise LoadError("wrk is not installed: it sends the requests (Debian and Ubuntu: apt-get install wrk)")
    return found


def litserve_version() -> str:
    """The version of LitServe. Raises LoadError if it is not installed."""
    try:
        return version("litserve")
    except PackageNotFoundError:
        raise LoadError("litserve is not installed: pip install -r requirements-bench.txt") from None


def write(folder: Path, name: str, requests: Iterable[tuple[str, str]]) -> Path:
    """Writes requests, each a path and a body, to a file; requests without a body are sent by GET, others by POST."""
    path = folder / f"{name}.tsv"
    path.write_text("".join(f"{at}\t{body}\n" for at, body in requests))
    (folder / "requests.lua").write_text(SCRIPT)
    return path


def send(url: str, requests: Path, token: str, *, connections: int, seconds: int) -> dict[str, float]:
    """``requests_per_second``, ``p50_ms`` and ``p99_ms`` of these requests, sent cyclically. Raises LoadError."""
    command = [program(), "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
    command += ["-s", str(requests.parent / "requests.lua"), url, "--", str(requests), token]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
    if done.returncode != 0:
        raise LoadError(f"wrk failed at {url}: {(done.stderr or done.stdout).strip()[-500:]}")
    return figures(done.stdout, f"{requests.stem} at {url}")


def figures(output: str, requests: str) -> dict[str, float]:
    """The results that the script printed last. Raises LoadError if any request was refused or failed."""
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    if found["refused"] or found["broken"] or not found["requests"]:
        text = f"{found['requests']} responses, {found['refused']} of them errors; {found['broken']} connection errors"
        raise LoadError(f"{requests}: {text}")
    return {
        "requests": found["requests"],
        "requests_per_second": found["requests"] / (found["microseconds"] / 1e6),
        "p50_ms": found["p50"] / 1e3,
        "p99_ms": found["p99"] / 1e3,
    }
