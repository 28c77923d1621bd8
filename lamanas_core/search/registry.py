"""The kinds of network."""

from lamanas_core.config import NetworkConfig
from lamanas_core.search.network import Network
from lamanas_core.search.supernet import CellNetwork
from lamanas_core.search.taps import TapNetwork


def make_network(config: NetworkConfig, device: str = "cpu", *, half_precision: bool = False) -> Network:
    """The network that ``config`` describes; ``device`` and ``half_precision`` as in ``CellNetwork``."""
    if config.backbone is not None:
        return TapNetwork(config, device)
    return CellNetwork(config, device, half_precision=half_precision)
