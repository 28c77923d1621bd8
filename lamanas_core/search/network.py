"""The supernet: a stem, then cells whose edges mix all candidate operations by α."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamanas_core.backbones import ResNetStem
from lamanas_core.config import NetworkConfig
from lamanas_core.search.alpha import CellWeights, EdgeWeights, edges
from lamanas_core.search.normalisation import Normalisation, Statistics, name_normalisations
from lamanas_core.search.operations import PointwiseConvolution, State, make_operation


class Cell(nn.Module):
    """Two inputs, ``nodes`` nodes; its output is the nodes side by side, (n, nodes * C, h, w).

    Inputs and output are behind their ReLU: each is needed so by all that follow, and by nothing else.
    """

    def __init__(self, config: NetworkConfig, kind: str, before: tuple[int, int], first_is_larger: bool) -> None:
        super().__init__()
        self.kind = kind
        self.nodes = config.nodes
        channels = config.channels
        # The cell before the last may have twice the side of the last one: its 1 x 1 convolution halves it.
        self.prepare0 = Preparation(before[0], channels, 2 if first_is_larger else 1)
        self.prepare1 = Preparation(before[1], channels, 1)
        self.edges = nn.ModuleList()
        for _, source in edges(config.nodes):
            stride = 2 if kind == "reduction" and source < 2 else 1
            self.edges.append(nn.ModuleList(make_operation(name, channels, stride) for name in config.operations))

    def forward(self, before: tuple[Tensor, Tensor], mix: EdgeWeights, statistics: Statistics) -> Tensor:
        states = [State(self.prepare0(before[0], statistics)), State(self.prepare1(before[1], statistics))]
        sums: list[Tensor | None] = [None] * self.nodes
        for row, (node, source) in enumerate(edges(self.nodes)):
            if source == node + 1 and source >= 2:
                states.append(_finished(sums[node - 1]))
            for o in mix.kept[row]:
                operation = self.edges[row][o]  # type: ignore[index]
                term = operation(states[source], statistics, mix.weights[row, o])
                previous = sums[node]
                sums[node] = term if previous is None else previous + term
        states.append(_finished(sums[-1]))
        return torch.cat([state.active for state in states[2:]], dim=1)


def _finished(total: Tensor | None) -> State:
    if total is None:
        raise ValueError("a node keeps no input")
    return State(total)


class Preparation(nn.Module):
    """1 x 1 convolution, normalisation: brings a cell's input (behind its ReLU) to its width (and side)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv = PointwiseConvolution(channels_in, channels, stride)
        self.norm = Normalisation(channels)

    def forward(self, x: Tensor, statistics: Statistics) -> Tensor:
        normalised: Tensor = self.norm(self.conv(x), statistics)
        return normalised


class Supernet(nn.Module):
    """θ. ``forward(images, weights, statistics)``: float (n, c, h, w) in 0..1 -> embeddings (n, features)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.channels
        self.pool_to = config.pool_to
        self.stem: nn.Conv2d | ResNetStem
        if config.stem == "resnet18":
            self.stem = ResNetStem(config)
        else:
            self.stem = nn.Conv2d(config.image.channels, channels, 3, config.stem_stride, 1, bias=False)
            self.stem_norm = Normalisation(channels)
        self.cells = nn.ModuleList()
        before, first_is_larger = (channels, channels), False
        for kind in config.cells:
            self.cells.append(Cell(config, kind, before, first_is_larger))
            before, first_is_larger = (before[1], config.nodes * channels), kind == "reduction"
        self.features = config.nodes * channels * config.pool_to**2
        if config.head == "linear":
            self.head = nn.Linear(self.features, config.ways)
        name_normalisations(self)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, images: Tensor, weights: CellWeights, statistics: Statistics) -> Tensor:
        stem = self.stem(images, statistics) if isinstance(self.stem, ResNetStem) else self.stem(images)
        # Here, where it means something: one grey channel has the same strides in either layout.
        x = stem.contiguous(memory_format=torch.channels_last)
        if not isinstance(self.stem, ResNetStem):
            x = self.stem_norm(x, statistics)
        x = F.relu(x)
        before = (x, x)
        for cell in self.cells:
            before = (before[1], cell(before, weights.kinds[cell.kind], statistics))  # type: ignore[index]
        return F.adaptive_avg_pool2d(before[1], self.pool_to).flatten(1)


def initialise(network: Supernet, generator: torch.Generator) -> None:
    """He initialisation of every convolution from ``generator``; normalisations start at scale 1, shift 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
        elif isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, a=5**0.5, generator=generator)
            nn.init.zeros_(module.bias)
