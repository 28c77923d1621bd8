"""Meta-models: trained parameters (θ, α, φ) with a model card, immutable, versioned by a digest."""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.backbones.storage import BackboneError
from lamanas_core.config import Config
from lamanas_core.files import write_whole
from lamanas_core.image_spec import KINDS, ImageKind

_SHIPPED = resources.files("lamanas_core") / "shipped"


class MetaModelError(ValueError):
    """Weights and model card are not a valid meta-model; the message gives the reason."""


class MetaModel:
    """Parameters, the modules that use them, and the model card.

    ``version``: the first 16 hexadecimal digits of the SHA-256 of config and weights.
    """

    def __init__(self, parameters: Parameters, card: dict[str, Any]) -> None:
        self.config = Config.from_json(card["config"])
        self.parameters = parameters
        self.card = card
        self.learner = TaskLearner.build(self.config)
        digest = hashlib.sha256(json.dumps(card["config"], sort_keys=True).encode())
        digest.update(self.to_bytes())
        self.version = digest.hexdigest()[:16]

    @classmethod
    def from_bytes(cls, weights: bytes, card: dict[str, Any]) -> "MetaModel":
        """Load ``weights``, a safetensors file, with their ``card``. Raises MetaModelError if they do not match, and
        BackboneError.
        """
        try:
            config = Config.from_json(card["config"])
            named = load(weights)
            expected = initial_parameters(config, 0).named()
        except BackboneError:
            raise
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise MetaModelError(f"not a meta-model: {error}") from error
        for name in expected.keys() | named.keys():
            if name not in named or name not in expected:
                raise MetaModelError(f"the weights do not match the model card: {name} is missing from one of them")
            if named[name].shape != expected[name].shape:
                shape = tuple(named[name].shape)
                raise MetaModelError(f"the weights do not match the model card: {name} has shape {shape}")
        # In the network's order, by which step sizes are indexed: a safetensors file does not preserve any order.
        return cls(Parameters.from_named({name: named[name] for name in expected}), card)

    def to_bytes(self) -> bytes:
        """The weights as a safetensors file."""
        data: bytes = save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in self.parameters.named().items()}
        )
        return data


def shipped_kinds() -> tuple[ImageKind, ...]:
    """The kinds of images for which a meta-model ships with the package."""
    return tuple(kind for kind in KINDS if (_SHIPPED / kind).is_dir())


def shipped(kind: ImageKind = "drawings") -> tuple[bytes, dict[str, Any]]:
    """Weights (a safetensors file) and model card of the meta-model for this kind that ships with the package.

    Raises FileNotFoundError if there is none.
    """
    folder = _SHIPPED / kind
    card: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
    return (folder / "model.safetensors").read_bytes(), card


def write(model: MetaModel, folder: Path) -> None:
    """Write ``folder/model.safetensors``, then the card ``folder/model.json``, which marks the model as complete."""
    write_whole(folder / "model.safetensors", model.to_bytes())
    card = json.dumps(model.card | {"version": model.version}, indent=2) + "\n"
    write_whole(folder / "model.json", card.encode())


def read(folder: Path) -> MetaModel:
    """Read what ``write`` wrote. Raises FileNotFoundError, MetaModelError and BackboneError."""
    card = json.loads((folder / "model.json").read_text("utf-8"))
    return MetaModel.from_bytes((folder / "model.safetensors").read_bytes(), card)
