"""The files of backbones: ONNX files, the shipped one in ``files``, others in the folder ``backbones`` of the data
directory. Whoever keeps those elsewhere as well puts there what ``MissingBackboneError`` asks for.
"""

import hashlib
import os
import re
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

# "<network>-<the first 12 hexadecimal digits of the file's SHA-256>"
NAME = re.compile(r"[\w.-]+-[0-9a-f]{12}")


class BackboneError(ValueError):
    """There is no such backbone, or its file is not what its name says."""


class MissingBackboneError(BackboneError):
    """The backbone ``name`` does not ship with the package, and this machine has no undamaged file of it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name = name


def own_backbones() -> Path:
    """The folder of the backbones that do not ship with the package."""
    return Path(os.environ.get("LAMANAS_DATA_DIR", "data")).expanduser() / "backbones"


def own_file(name: str) -> Path:
    """Where the file of a backbone that does not ship with the package is on this machine, or belongs."""
    return own_backbones() / f"{name}.onnx"


def named(network: str, data: bytes) -> str:
    """The name of the backbone with the ONNX file ``data``."""
    return f"{network}-{hashlib.sha256(data).hexdigest()[:12]}"


def digest_fits(name: str, digest: str) -> bool:
    """Whether a file with this SHA-256, in hexadecimal, can be that of the backbone ``name``."""
    return bool(NAME.fullmatch(name)) and digest.startswith(name.rpartition("-")[2])


def ships(name: str) -> bool:
    """Whether the backbone ``name`` ships with the package."""
    return bool(NAME.fullmatch(name)) and _shipped_file(name).is_file()


def backbone_file(name: str) -> bytes:
    """The ONNX file of the backbone ``name``. Raises BackboneError."""
    if not NAME.fullmatch(name):
        raise BackboneError(f"there is no backbone {name!r}")
    file = _shipped_file(name) if ships(name) else own_file(name)
    if not file.is_file():
        raise MissingBackboneError(
            name,
            f"there is no backbone {name!r} in {own_backbones()}; if it shipped with another version of LAMANAS, "
            "install that",
        )
    data = file.read_bytes()
    if not digest_fits(name, hashlib.sha256(data).hexdigest()):
        text = f"the file of the backbone {name!r} is damaged: {file}"
        raise BackboneError(text) if ships(name) else MissingBackboneError(name, text)
    return data


def _shipped_file(name: str) -> Traversable:
    return resources.files("lamanas_core") / "backbones" / "files" / f"{name}.onnx"
