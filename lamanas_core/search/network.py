"""The supernet: a backbone, then cells whose edges mix all candidate operations by α; as a pure function of θ."""

import copy
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lamanas_core.backbones import make_backbone
from lamanas_core.config import NetworkConfig
from lamanas_core.heads import make_head
from lamanas_core.onnx_writer import OnnxState, OnnxWriter, array
from lamanas_core.search.alpha import KINDS, CellWeights, EdgeWeights, edges
from lamanas_core.search.normalisation import ALL_ROWS, Batch, Moments, Normalisation, PartMoments
from lamanas_core.search.operations import CellState, Operation, PointwiseConvolution, operation_type


@dataclass(frozen=True)
class CellMoments:
    """The moments of a cell's two preparations, and of each operation that was computed, by edge and operation."""

    prepare: tuple[Moments, Moments]
    operations: Mapping[tuple[int, int], PartMoments]


@dataclass(frozen=True)
class NetworkMoments:
    """The moments of every normalisation that a forward pass went through."""

    backbone: PartMoments
    stem: Moments
    cells: tuple[CellMoments, ...]


class Preparation(nn.Module):
    """1 x 1 convolution, normalisation: brings a cell's input (behind its ReLU) to its width (and side)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = PointwiseConvolution(channels_in, channels, stride)
        self.norm = Normalisation(channels)

    def forward(self, x: Tensor, moments: Moments | None, batch: Batch) -> tuple[Tensor, Moments]:
        normalised: tuple[Tensor, Moments] = self.norm(self.conv(x), moments, batch)
        return normalised

    def onnx(self, writer: OnnxWriter, x: str, moments: Moments) -> str:
        """``x``: the input before its ReLU."""
        active, stride = writer.node("Relu", [x]), (self.stride, self.stride)
        return writer.convolution(active, array(self.conv.weight), self.norm.folded(moments), stride=stride)


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
            makers = (operation_type(name) for name in config.operations)
            self.edges.append(nn.ModuleList(maker.make(channels, stride) for maker in makers))

    def operation(self, edge: int, number: int) -> Operation:
        """The operation of this number on this edge."""
        found = self.edges[edge][number]  # type: ignore[index]
        assert isinstance(found, Operation)
        return found

    def forward(
        self, before: tuple[Tensor, Tensor], mix: EdgeWeights, moments: CellMoments | None, batch: Batch
    ) -> tuple[Tensor, CellMoments]:
        first, of_first = self.prepare0(before[0], None if moments is None else moments.prepare[0], batch)
        second, of_second = self.prepare1(before[1], None if moments is None else moments.prepare[1], batch)
        states = [CellState(first), CellState(second)]
        sums: list[Tensor | None] = [None] * self.nodes
        found: dict[tuple[int, int], PartMoments] = {}
        for edge, (node, source) in enumerate(edges(self.nodes)):
            if source == node + 1 and source >= 2:
                states.append(_finished(sums[node - 1]))
            for number in mix.kept[edge]:
                given = None if moments is None else moments.operations[edge, number]
                operation = self.operation(edge, number)
                term, found[edge, number] = operation(states[source], mix.weights[edge, number], given, batch)
                previous = sums[node]
                sums[node] = term if previous is None else previous + term
        states.append(_finished(sums[-1]))
        return torch.cat([state.active for state in states[2:]], dim=1), CellMoments((of_first, of_second), found)

    def onnx(self, writer: OnnxWriter, before: tuple[str, str], mix: EdgeWeights, moments: CellMoments) -> str:
        """Write what ``mix`` keeps; the name of the nodes side by side, before their ReLU."""
        prepared = (
            self.prepare0.onnx(writer, before[0], moments.prepare[0]),
            self.prepare1.onnx(writer, before[1], moments.prepare[1]),
        )
        states = [OnnxState(writer, name) for name in prepared]
        terms: list[list[str]] = [[] for _ in range(self.nodes)]
        for edge, (node, source) in enumerate(edges(self.nodes)):
            if source == node + 1 and source >= 2:
                states.append(OnnxState(writer, writer.sum(terms[node - 1])))
            for number in mix.kept[edge]:
                gain = float(mix.weights[edge, number].detach())
                operation = self.operation(edge, number)
                terms[node].append(operation.onnx(writer, states[source], moments.operations[edge, number], gain))
        states.append(OnnxState(writer, writer.sum(terms[-1])))
        return writer.node("Concat", [state.value for state in states[2:]], axis=1)


def _finished(total: Tensor | None) -> CellState:
    if total is None:
        raise ValueError("a node keeps no input")
    return CellState(total)


class Supernet(nn.Module):
    """The modules of the network. Their parameters have the names and shapes of θ."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.channels
        self.pool_to = config.pool_to
        self.stem = make_backbone(config)
        self.stem_norm = Normalisation(channels)
        self.cells = nn.ModuleList()
        before, first_is_larger, side = (channels, channels), False, self.stem.side()
        for kind in config.cells:
            self.cells.append(Cell(config, kind, before, first_is_larger))
            before, first_is_larger = (before[1], config.nodes * channels), kind == "reduction"
            side = (side + 1) // 2 if kind == "reduction" else side
        self.side = side
        self.features = config.nodes * channels * config.pool_to**2
        layer = make_head(config).layer(self.features)
        if layer is not None:
            self.head = layer
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def cell(self, number: int) -> Cell:
        """The cell of this number, from the input on."""
        found = self.cells[number]
        assert isinstance(found, Cell)
        return found

    def forward(
        self, images: Tensor, weights: CellWeights, moments: NetworkMoments | None, batch: Batch
    ) -> tuple[Tensor, NetworkMoments]:
        """See ``Network``."""
        stem, of_backbone = self.stem(images, None if moments is None else moments.backbone, batch)
        # Here, where it means something: one grey channel has the same strides in either layout.
        stem = stem if batch.stacked else stem.contiguous(memory_format=torch.channels_last)
        x, of_stem = self.stem_norm(stem, None if moments is None else moments.stem, batch)
        before, found = (F.relu(x),) * 2, []
        for number in range(len(self.cells)):
            cell = self.cell(number)
            given = None if moments is None else moments.cells[number]
            out, own = cell(before, weights.kinds[cell.kind], given, batch)
            before = (before[1], out)
            found.append(own)
        pooled = F.adaptive_avg_pool2d(before[1], self.pool_to).flatten(1)
        return pooled, NetworkMoments(of_backbone, of_stem, tuple(found))

    def onnx(self, writer: OnnxWriter, images: str, weights: CellWeights, moments: NetworkMoments) -> str:
        """Write the features (n, d) of float ``images`` in 0..255; their name."""
        x = self.stem.onnx(writer, images, moments.backbone, self.stem_norm.folded(moments.stem))
        before = (x, x)
        for number in range(len(self.cells)):
            cell = self.cell(number)
            before = (before[1], cell.onnx(writer, before, weights.kinds[cell.kind], moments.cells[number]))
        stride = self.side // self.pool_to
        kernel = self.side - stride * (self.pool_to - 1)
        active = writer.node("Relu", [before[1]])
        pooled = writer.node("AveragePool", [active], kernel_shape=[kernel] * 2, strides=[stride] * 2)
        return writer.node("Flatten", [pooled])


class Network:
    """The supernet as a pure function: structure alone, every call is given θ.

    ``device``: where a frozen backbone and the calls' tensors are. ``half_precision``: convolutions in bfloat16;
    normalisation, its moments and the features stay float32. For training alone: an adapted network must equal its
    artifact, which is float32.
    """

    def __init__(self, config: NetworkConfig, device: str = "cpu", *, half_precision: bool = False) -> None:
        self.config = config
        self._supernet = Supernet(config).to(device)
        self._half = half_precision
        self._device_type = torch.device(device).type

    def __call__(
        self,
        theta: Mapping[str, Tensor],
        weights: CellWeights,
        images: Tensor,
        moments: NetworkMoments | None = None,
        batch: Batch = ALL_ROWS,
    ) -> tuple[Tensor, NetworkMoments]:
        """float images (n, c, h, w) in 0..1 -> features (n, d), and the moments that normalised them: ``moments``, or
        those of ``batch`` where that is None. Every operation is weighted as ``weights`` says."""
        with torch.autocast(self._device_type, torch.bfloat16) if self._half else nullcontext():
            features, found = functional_call(self._supernet, dict(theta), (images, weights, moments, batch))
        return features.float() if self._half else features, found

    def initial_theta(self, generator: torch.Generator) -> dict[str, Tensor]:
        """θ at random: He initialisation of every convolution, uniform of a layer; normalisations start at scale 1,
        shift 0."""
        theta = {}
        for name, value in Supernet(self.config).named_parameters():
            if not value.requires_grad:
                continue
            if value.ndim == 4:
                nn.init.kaiming_normal_(value, nonlinearity="relu", generator=generator)
            elif value.ndim == 2:
                nn.init.kaiming_uniform_(value, a=5**0.5, generator=generator)
            elif name.endswith("bias"):
                nn.init.zeros_(value)
            theta[name] = value.detach().clone()
        return theta

    def onnx(
        self,
        writer: OnnxWriter,
        images: str,
        theta: Mapping[str, Tensor],
        weights: CellWeights,
        moments: NetworkMoments,
    ) -> str:
        """Write the network with θ as it is, pruned to what ``weights`` keeps; see ``Supernet.onnx``."""
        concrete = copy.deepcopy(self._supernet)
        concrete.load_state_dict(dict(theta), strict=False)
        return concrete.onnx(writer, images, weights, moments)

    @cached_property
    def operation_costs(self) -> dict[str, Tensor]:
        """For both kinds of cell: how many numbers of θ each operation needs on each edge in all cells of the kind
        together, int64 (edges, operations)."""
        rows, columns = len(edges(self.config.nodes)), len(self.config.operations)
        costs = {kind: torch.zeros(rows, columns, dtype=torch.int64) for kind in KINDS}
        for number in range(len(self.config.cells)):
            cell = self._supernet.cell(number)
            for edge in range(rows):
                for operation in range(columns):
                    costs[cell.kind][edge, operation] += cell.operation(edge, operation).cost()
        return costs

    @cached_property
    def fixed_cost(self) -> int:
        """How many numbers of θ are in use whatever α says."""
        every = sum(value.numel() for value in self._supernet.parameters() if value.requires_grad)
        return every - int(sum(cost.sum() for cost in self.operation_costs.values()))

    def kept_cost(self, weights: CellWeights) -> int:
        """How many numbers of θ are in use where only what ``weights`` keeps is computed."""
        return self.fixed_cost + sum(
            int(costs[edge, list(numbers)].sum())
            for kind, costs in self.operation_costs.items()
            for edge, numbers in enumerate(weights.kinds[kind].kept)
        )
