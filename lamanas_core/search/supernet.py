"""The supernet as a pure function of θ: a stem, then cells whose edges mix the candidate operations by α."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from onnx import TensorProto
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from lamanas_core.config import NetworkConfig
from lamanas_core.data.episodes import to_float
from lamanas_core.genotype import Genotype
from lamanas_core.heads.registry import make_head
from lamanas_core.onnx_writer import OnnxState, OnnxWriter, Value, array
from lamanas_core.search.alpha import KINDS, cell_weights, edges, genotype, initial_alpha
from lamanas_core.search.mixing import CellWeights, EdgeWeights, Mixing
from lamanas_core.search.network import Network
from lamanas_core.search.normalisation import ALL_ROWS, Batch, Moments, Normalisation, PartMoments
from lamanas_core.search.operations import CellState, Operation, PointwiseConvolution, operation_type
from lamanas_core.search.stems import make_stem


@dataclass(frozen=True)
class CellMoments:
    """The moments of a cell's two preparations, and of each computed operation, by (edge, operation)."""

    prepare: tuple[Moments, Moments]
    operations: Mapping[tuple[int, int], PartMoments]


@dataclass(frozen=True)
class SupernetMoments:
    """The moments of all normalisation layers in a forward pass."""

    stem: PartMoments
    stem_norm: Moments
    cells: tuple[CellMoments, ...]


class Preparation(nn.Module):
    """1 x 1 convolution and normalisation: brings a cell's input, after its ReLU, to the cell's width and side."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = PointwiseConvolution(channels_in, channels, stride)
        self.norm = Normalisation(channels)

    def forward(self, x: Tensor, moments: Moments | None, batch: Batch) -> tuple[Tensor, Moments]:
        """(n, channels_in, h, w) -> (n, channels, h / stride, w / stride), and the moments; see ``Normalisation``."""
        normalised: tuple[Tensor, Moments] = self.norm(self.conv(x), moments, batch)
        return normalised

    def onnx(self, writer: OnnxWriter, x: str, moments: Moments) -> str:
        """Write the preparation with fixed ``moments`` for ``x``, the input before its ReLU; the result's name."""
        active, stride = writer.node("Relu", [x]), (self.stride, self.stride)
        return writer.convolution(active, array(self.conv.weight), self.norm.folded(moments), stride=stride)


class Cell(nn.Module):
    """A cell with two inputs and ``nodes`` nodes; its output is their concatenation, (n, nodes * channels, h, w).

    A ReLU has been applied to inputs and output, since every consumer applies one first.

    ``before``: the channels of the two inputs. ``first_is_larger``: the first input has twice the side of the second.
    """

    def __init__(self, config: NetworkConfig, kind: str, before: tuple[int, int], first_is_larger: bool) -> None:
        super().__init__()
        self.kind = kind
        self.nodes = config.nodes
        channels = config.channels
        # After a reduction cell, the output of the cell before it has twice the side; a strided convolution halves it.
        self.prepare0 = Preparation(before[0], channels, 2 if first_is_larger else 1)
        self.prepare1 = Preparation(before[1], channels, 1)
        self.edges = nn.ModuleList()
        for _, source in edges(config.nodes):
            stride = 2 if kind == "reduction" and source < 2 else 1
            types = (operation_type(name) for name in config.operations)
            self.edges.append(nn.ModuleList(operation.make(channels, stride) for operation in types))

    def operation(self, edge: int, number: int) -> Operation:
        """The operation with this index on the edge with this index."""
        found = self.edges[edge][number]  # type: ignore[index]
        assert isinstance(found, Operation)
        return found

    def forward(
        self, before: tuple[Tensor, Tensor], mix: EdgeWeights, moments: CellMoments | None, batch: Batch
    ) -> tuple[Tensor, CellMoments]:
        """The cell's output, (n, nodes * channels, h, w), and the moments that normalised it.

        ``before``: the outputs of the two preceding cells, the earlier one first. ``mix``: the weights of the
        operations. ``moments``: the moments to normalise with; None: those of the input, as ``batch`` specifies. Raises
        ValueError if ``mix`` keeps no input of a node.
        """
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
        """Write the operations that ``mix`` keeps; the name of the concatenated nodes, before their ReLU."""
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
        raise ValueError("all inputs of a node were dropped")
    return CellState(total)


class Supernet(nn.Module):
    """The modules of the network; their parameters have the names and shapes of θ.

    ``side``: of the last feature map. ``features``: the dimension d of the features. Raises ValueError if the config
    names an unknown stem, operation or head.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = config.channels
        self.pool_to = config.pool_to
        self.stem = make_stem(config)
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
        """The cell with this index, counted from the input."""
        found = self.cells[number]
        assert isinstance(found, Cell)
        return found

    def forward(
        self, images: Tensor, weights: CellWeights, moments: SupernetMoments | None, batch: Batch
    ) -> tuple[Tensor, SupernetMoments]:
        """See ``CellNetwork.__call__``."""
        stem, of_stem = self.stem(images, None if moments is None else moments.stem, batch)
        # Not before the stem: with a single channel, both layouts have the same strides.
        stem = stem if batch.stacked else stem.contiguous(memory_format=torch.channels_last)
        x, of_norm = self.stem_norm(stem, None if moments is None else moments.stem_norm, batch)
        before, found = (F.relu(x),) * 2, []
        for number in range(len(self.cells)):
            cell = self.cell(number)
            given = None if moments is None else moments.cells[number]
            out, own = cell(before, weights.kinds[cell.kind], given, batch)
            before = (before[1], out)
            found.append(own)
        features = pooled(before[1], self.pool_to).flatten(1)
        return features, SupernetMoments(of_stem, of_norm, tuple(found))

    def onnx(self, writer: OnnxWriter, images: str, weights: CellWeights, moments: SupernetMoments) -> str:
        """Write the features (n, d) of ``images``, float in 0..255, with fixed ``moments``; their name."""
        x = self.stem.onnx(writer, images, moments.stem, self.stem_norm.folded(moments.stem_norm))
        before = (x, x)
        for number in range(len(self.cells)):
            cell = self.cell(number)
            before = (before[1], cell.onnx(writer, before, weights.kinds[cell.kind], moments.cells[number]))
        active = writer.node("Relu", [before[1]])
        return writer.node("Flatten", [_pooled_onnx(writer, active, self.side, self.pool_to)])


def pooled(x: Tensor, to: int) -> Tensor:
    """``F.adaptive_avg_pool2d``, (n, c, h, h) -> (n, c, ``to``, ``to``), whose gradient on a GPU is deterministic."""
    side = x.shape[-1]
    if to == 1:  # torch takes the mean
        return F.adaptive_avg_pool2d(x, 1)
    equal = _equal_bins(side, to)
    if equal is not None:
        return F.avg_pool2d(x, *equal)
    means = torch.from_numpy(_bin_means(side, to)).to(x)
    return means.T @ x @ means


def _pooled_onnx(writer: OnnxWriter, x: str, side: int, to: int) -> str:
    """Write ``pooled``; the name of the result."""
    equal = _equal_bins(side, to)
    if equal is not None:
        kernel, stride = equal
        return writer.node("AveragePool", [x], kernel_shape=[kernel] * 2, strides=[stride] * 2)
    means = _bin_means(side, to)
    columns = writer.node("MatMul", [writer.constant(means.T), x])
    return writer.node("MatMul", [columns, writer.constant(means)])


def _bins(side: int, to: int) -> list[tuple[int, int]]:
    """Where each of ``to`` bins of one axis starts and ends; they can overlap and differ in size."""
    return [(i * side // to, -(-(i + 1) * side // to)) for i in range(to)]


def _equal_bins(side: int, to: int) -> tuple[int, int] | None:
    """The size of all bins and their distance; None if they differ."""
    (_, kernel), (stride, _) = (*_bins(side, to), (side, side))[:2]
    equal = [(i * stride, i * stride + kernel) for i in range(to)]
    return (kernel, stride) if stride > 0 and _bins(side, to) == equal else None


def _bin_means(side: int, to: int) -> npt.NDArray[np.float64]:
    """A matrix (``side``, ``to``) whose product with the values of an axis has the mean of each bin."""
    means = np.zeros((side, to))
    for i, (start, end) in enumerate(_bins(side, to)):
        means[start:end, i] = 1 / (end - start)
    return means


class _Writing(nn.Module):
    """``Supernet.onnx`` as a forward pass, so that ``functional_call`` can give it θ without a copy of the module."""

    def __init__(self, supernet: Supernet) -> None:
        super().__init__()
        self.supernet = supernet

    def forward(self, writer: OnnxWriter, images: str, weights: CellWeights, moments: SupernetMoments) -> str:
        return self.supernet.onnx(writer, images, weights, moments)


class CellNetwork(Network):
    """The supernet as a pure function.

    ``device``: of a frozen stem and of the calls' tensors. ``half_precision``: convolutions in bfloat16, while
    normalisation, its moments and the features remain float32; for training only, since an adapted network must equal
    its float32 artifact.
    """

    def __init__(self, config: NetworkConfig, device: str = "cpu", *, half_precision: bool = False) -> None:
        self.config: NetworkConfig = config
        self._supernet = Supernet(config).to(device)
        self._half = half_precision
        self._device_type = torch.device(device).type

    def inputs(self, images: Tensor) -> Tensor:
        """The images as float32 in 0..1."""
        return to_float(images)

    def weights(self, alpha: Mapping[str, Tensor], mixing: Mixing) -> CellWeights:
        return cell_weights(alpha, self.config, mixing)

    def initial_alpha(self) -> dict[str, Tensor]:
        return initial_alpha(self.config)

    def genotype(self, alpha: Mapping[str, Tensor], threshold: float | None = None) -> Genotype:
        return genotype(alpha, self.config, self.config.prune_threshold if threshold is None else threshold)

    def __call__(
        self,
        theta: Mapping[str, Tensor],
        weights: CellWeights,
        inputs: Tensor,
        moments: SupernetMoments | None = None,
        batch: Batch = ALL_ROWS,
    ) -> tuple[Tensor, SupernetMoments]:
        with torch.autocast(self._device_type, torch.bfloat16) if self._half else nullcontext():
            # No tensor of the supernet is shared, and to look for shared ones would take a millisecond.
            features, found = functional_call(
                self._supernet, self._used(theta, weights), (inputs, weights, moments, batch), tie_weights=False
            )
        return features.float() if self._half else features, found

    def _used(self, theta: Mapping[str, Tensor], weights: CellWeights) -> dict[str, Tensor]:
        """``theta`` without the operations that ``weights`` drops: to set hundreds of parameters takes milliseconds."""
        owners = self._operation_of
        return {
            name: value
            for name, value in theta.items()
            if name not in owners or owners[name][2] in weights.kinds[owners[name][0]].kept[owners[name][1]]
        }

    @cached_property
    def _operation_of(self) -> dict[str, tuple[str, int, int]]:
        """Of each parameter that belongs to an operation: the kind of cell, the edge and the operation's index."""
        return {
            f"cells.{cell}.edges.{edge}.{number}.{name}": (kind, edge, number)
            for cell, kind, edge, number, operation in self._operations()
            for name, _ in operation.named_parameters()
        }

    def _operations(self) -> Iterator[tuple[int, str, int, int, Operation]]:
        """All operations: the index and the kind of the cell, the edge, the index on the edge, and the operation."""
        for number, kind in enumerate(self.config.cells):
            cell = self._supernet.cell(number)
            for edge in range(len(edges(self.config.nodes))):
                for operation in range(len(self.config.operations)):
                    yield number, kind, edge, operation, cell.operation(edge, operation)

    def initial_theta(self, generator: torch.Generator) -> dict[str, Tensor]:
        """A random θ: He initialisation (normal) for convolutions and torch's uniform one for linear weights.

        Normalisations have weight 1 and bias 0, and a linear layer has bias 0. A frozen stem's parameters are not
        part of θ.
        """
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

    def graph_inputs(self) -> dict[str, Value]:
        return {"images": (TensorProto.UINT8, ("n", *self.config.image.shape))}

    def onnx(
        self, writer: OnnxWriter, theta: Mapping[str, Tensor], weights: CellWeights, moments: SupernetMoments
    ) -> str:
        images = writer.node("Cast", ["images"], to=TensorProto.FLOAT)
        concrete = {f"supernet.{name}": value for name, value in theta.items()}
        name: str = functional_call(
            _Writing(self._supernet), concrete, (writer, images, weights, moments), tie_weights=False
        )
        return name

    @cached_property
    def operation_costs(self) -> dict[str, Tensor]:
        """By kind of cell, the parameters in θ of each operation on each edge, summed over all cells of the kind:
        int64 (edges, operations).
        """
        rows, columns = len(edges(self.config.nodes)), len(self.config.operations)
        costs = {kind: torch.zeros(rows, columns, dtype=torch.int64) for kind in KINDS}
        for _, kind, edge, number, operation in self._operations():
            costs[kind][edge, number] += operation.cost()
        return costs

    @cached_property
    def fixed_cost(self) -> int:
        """The number of parameters in θ that are used regardless of α."""
        total = sum(value.numel() for value in self._supernet.parameters() if value.requires_grad)
        return total - int(sum(cost.sum() for cost in self.operation_costs.values()))

    def kept_cost(self, weights: CellWeights) -> int:
        return self.fixed_cost + sum(
            int(costs[edge, list(numbers)].sum())
            for kind, costs in self.operation_costs.items()
            for edge, numbers in enumerate(weights.kinds[kind].kept)
        )
