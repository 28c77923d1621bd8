"""The heads by name. To add one, implement ``Head`` in a new file and register it in ``HEADS``."""

from lamanas_core.config import NetworkConfig
from lamanas_core.heads.base import Head
from lamanas_core.heads.gaussian import GaussianHead
from lamanas_core.heads.linear import LinearHead
from lamanas_core.heads.prototypes import PrototypeHead

HEADS: dict[str, type[Head]] = {"prototypes": PrototypeHead, "gaussian": GaussianHead, "linear": LinearHead}


def make_head(network: NetworkConfig) -> Head:
    """The head named by ``network.head``. Raises ValueError if the name is unknown."""
    if network.head not in HEADS:
        raise ValueError(f"unknown head {network.head!r}; available: {', '.join(sorted(HEADS))}")
    return HEADS[network.head](network)
