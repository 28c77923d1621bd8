"""A meta-model: one trained (θ, α, φ) with its card, immutable, named by its digest."""

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save

from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import Parameters, initial_parameters
from lamanas_core.config import Config
from lamanas_core.files import write_whole


class MetaModelError(ValueError):
    """Weights and card do not make a meta-model; the message says why."""


class MetaModel:
    """Parameters, the modules that run them, and the card. ``version``: 16 hex digits over weights and config."""

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
        """Open safetensors ``weights`` with their ``card``. Raises MetaModelError on any mismatch."""
        try:
            config = Config.from_json(card["config"])
            named = load(weights)
            expected = initial_parameters(config, 0).named()
        except (KeyError, TypeError, ValueError, SafetensorError) as error:
            raise MetaModelError(f"not a meta-model: {error}") from error
        for name in expected.keys() | named.keys():
            if name not in named or name not in expected:
                raise MetaModelError(f"the weights do not fit their card: {name} is on one side only")
            if named[name].shape != expected[name].shape:
                raise MetaModelError(f"the weights do not fit their card: {name} is {tuple(named[name].shape)}")
        # In the network's order, which the step sizes go by: a safetensors file keeps none.
        return cls(Parameters.from_named({name: named[name] for name in expected}), card)

    def to_bytes(self) -> bytes:
        """The weights as safetensors."""
        data: bytes = save(
            {name: tensor.detach().cpu().contiguous() for name, tensor in self.parameters.named().items()}
        )
        return data


def shipped() -> tuple[bytes, dict[str, Any]]:
    """Weights and card of the meta-model that comes with the package."""
    folder = resources.files("lamanas_core") / "shipped"
    card: dict[str, Any] = json.loads((folder / "model.json").read_text("utf-8"))
    return (folder / "model.safetensors").read_bytes(), card


def write(model: MetaModel, folder: Path) -> None:
    """``folder/model.safetensors``, then its card ``folder/model.json``: where the card is, the model is finished."""
    write_whole(folder / "model.safetensors", model.to_bytes())
    card = json.dumps(model.card | {"version": model.version}, indent=2) + "\n"
    write_whole(folder / "model.json", card.encode())


def read(folder: Path) -> MetaModel:
    """The inverse of ``write``. Raises FileNotFoundError, MetaModelError."""
    card = json.loads((folder / "model.json").read_text("utf-8"))
    return MetaModel.from_bytes((folder / "model.safetensors").read_bytes(), card)
