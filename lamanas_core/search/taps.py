"""The search space of the photo model: what is adapted of a pretrained backbone's last maps, and which maps count.

The backbone B maps an image to maps x_1, ..., x_T, here of 14 x 14 and 7 x 7 positions. On each map a cell adds
operations o to it, weighted by α, all of which start as 0:

    x_t' = x_t + Σ_o w_{t,o} o(x_t)            w_t = softmax(α_t / τ)

The features are the mean and the deviation over all positions of each x_t', and the mean of the backbone's next layer
on the last one, relu6(H x_T' + b), if it has that layer. Each of these blocks of numbers passes through
p(v) = v / sqrt(|v| + ε), gets unit length, and is multiplied by its map's weight v_t, where v = n softmax(α_in / τ) for
n such weights: T, and one more for the next layer. So before any step the network is the backbone, and α decides what
of it is adapted, and which maps the head looks at.
"""

import math
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from onnx import TensorProto
from torch import Tensor

from lamanas_core.backbones.runtime import HEAD, open_backbone
from lamanas_core.config import NetworkConfig
from lamanas_core.genotype import ChosenOperation, Edge, Genotype
from lamanas_core.heads.registry import make_head
from lamanas_core.onnx_writer import OnnxWriter, Value, rounded
from lamanas_core.search.mixing import CellWeights, EdgeWeights, Mixing, mixed
from lamanas_core.search.network import Network, NetworkMoments, Tensors
from lamanas_core.search.normalisation import ALL_ROWS, Batch
from lamanas_core.search.tap_operations import TapOperation, tap_operation

EPSILON = 1e-4
SHORTEST = 1e-12
# The head is fitted to the support set anyway, so that its prior hardly moves in the first trainings.
HEAD_RATE = 0.01
MAPS, INPUTS = "maps", "inputs"


class TapNetwork(Network):
    """The backbone's maps with a cell on each. Its inputs are the numbers of all maps of an image in a row (n, m).

    ``inputs`` also takes what it returned, in float16 too, and with further rows of each image (n, k, m), which it
    leaves out. It has no normalisation, so that its moments are empty.
    """

    def __init__(self, config: NetworkConfig, device: str = "cpu") -> None:
        self.config: NetworkConfig = config
        assert config.backbone is not None
        self.backbone = open_backbone(config.backbone)
        self.shapes = self.backbone.shapes
        self._following = [torch.from_numpy(self.backbone.head[name]).to(device) for name in self.backbone.head]
        self._operations = [tap_operation(name) for name in config.operations]
        self._weights = {
            _weight(t, o): operation.shape(channels)
            for t, (channels, _, _) in enumerate(self.shapes.values())
            for o, operation in enumerate(self._operations)
            if operation is not None
        }
        self.fixed = frozenset(self._weights)
        following = len(self._following[0]) if self._following else 0
        self.features = following + 2 * sum(channels for channels, _, _ in self.shapes.values())

    def inputs(self, images: Tensor) -> Tensor:
        if images.is_floating_point():
            return (images[:, 0] if images.ndim == 3 else images).float()
        return torch.from_numpy(self.backbone.packed(images.cpu().numpy())).to(images.device)

    def weights(self, alpha: Mapping[str, Tensor], mixing: Mixing) -> CellWeights:
        """The kinds of cell are ``maps``, an edge per map, and ``inputs``, an edge per block of features. Only
        operations are dropped.
        """
        operations = torch.softmax(alpha["operations"] / mixing.temperature, dim=1)
        inputs = len(alpha["inputs"]) * torch.softmax(alpha["inputs"] / mixing.temperature, dim=0)
        found = mixed({MAPS: (operations, torch.ones_like(operations[:, 0]))}, mixing)
        return CellWeights({**found.kinds, INPUTS: EdgeWeights(inputs[:, None], ((0,),) * len(inputs))})

    def __call__(
        self,
        theta: Mapping[str, Tensor],
        weights: CellWeights,
        inputs: Tensor,
        moments: NetworkMoments = None,
        batch: Batch = ALL_ROWS,
    ) -> tuple[Tensor, NetworkMoments]:
        maps = torch.split(inputs, self.backbone.sizes, dim=1)
        mix, of_inputs = weights.kinds[MAPS], weights.kinds[INPUTS].weights
        blocks = []
        for t, (packed, shape) in enumerate(zip(maps, self.shapes.values(), strict=True)):
            x = packed.view(len(packed), *shape)
            x = sum((mix.weights[t, o] * operation(x, theta[name]) for o, operation, name in self._kept(mix, t)), x)
            mean = x.mean((2, 3))
            deviation = ((x - mean[:, :, None, None]).square().mean((2, 3)) + EPSILON).sqrt()
            blocks += [of_inputs[t] * _unit(mean), of_inputs[t] * _unit(deviation)]
        if self._following:
            weight, bias = self._following
            last = F.conv2d(x, weight.to(x), bias.to(x)).clamp(0, 6).mean((2, 3))
            blocks.append(of_inputs[-1] * _unit(last))
        return torch.cat(blocks, dim=1), ()

    def _kept(self, mix: EdgeWeights, t: int) -> Iterator[tuple[int, TapOperation, str]]:
        """The operations on map ``t`` that are computed: index, operation, and the name of its weight in θ."""
        for o in mix.kept[t]:
            operation = self._operations[o]
            if operation is not None:
                yield o, operation, _weight(t, o)

    def first_rate(self, name: str) -> float:
        return 1.0 if name in self.fixed else HEAD_RATE

    def initial_theta(self, generator: torch.Generator) -> dict[str, Tensor]:
        """All operations at 0, and the head's own start; nothing is random."""
        return {name: torch.zeros(shape) for name, shape in self._weights.items()} | self._prior()

    def _prior(self) -> Tensors:
        """The start of the head's parameters in θ."""
        layer = make_head(self.config).layer(self.features)
        own = {} if layer is None else dict(layer.named_parameters())
        return {f"head.{name}": value.detach().clone() for name, value in own.items()}

    def initial_alpha(self) -> dict[str, Tensor]:
        """``operations``: (maps, operations); ``inputs``: one per map, and one for the backbone's next layer."""
        count = len(self.shapes)
        inputs = count + 1 if self._following else count
        return {"operations": torch.zeros(count, len(self.config.operations)), "inputs": torch.zeros(inputs)}

    def graph_inputs(self) -> dict[str, Value]:
        maps = {name: (TensorProto.FLOAT, ("n", *shape)) for name, shape in self.shapes.items()}
        head = {name: (TensorProto.FLOAT, value.shape) for name, value in self.backbone.head.items()}
        return {**maps, **head}

    def onnx(
        self, writer: OnnxWriter, theta: Mapping[str, Tensor], weights: CellWeights, moments: NetworkMoments
    ) -> str:
        mix, of_inputs = weights.kinds[MAPS], weights.kinds[INPUTS].weights.flatten().tolist()
        blocks = []
        for t, name in enumerate(self.shapes):
            gains = {o: mix.weights[t, o].detach() for o in mix.kept[t]}
            terms = [operation.onnx(writer, name, gains[o] * theta[own]) for o, operation, own in self._kept(mix, t)]
            x = writer.sum([name, *terms])
            mean = writer.node("GlobalAveragePool", [x])
            off = writer.node("Sub", [x, mean])
            variance = writer.node("GlobalAveragePool", [writer.node("Mul", [off, off])])
            deviation = writer.node("Sqrt", [writer.node("Add", [variance, writer.number(EPSILON)])])
            blocks += [_unit_onnx(writer, part, of_inputs[t]) for part in (mean, deviation)]
        if self._following:
            last = writer.node("Conv", [x, *HEAD], kernel_shape=[1, 1])
            last = writer.node("GlobalAveragePool", [writer.relu6(last)])
            blocks.append(_unit_onnx(writer, last, of_inputs[-1]))
        return writer.node("Concat", blocks, axis=1)

    def stored(self, theta: Tensors) -> Tensors:
        pointwise = [o for o, operation in enumerate(self._operations) if operation is not None and operation.in_8_bits]
        names = [_weight(t, o) for t in range(len(self.shapes)) for o in pointwise]
        return theta | {name: rounded(theta[name]) for name in names}

    def kept_cost(self, weights: CellWeights) -> int:
        mix = weights.kinds[MAPS]
        kept = [math.prod(self._weights[name]) for t in range(len(self.shapes)) for _, _, name in self._kept(mix, t)]
        return sum(kept) + sum(value.numel() for value in self._prior().values())

    def genotype(self, alpha: Mapping[str, Tensor], threshold: float | None = None) -> Genotype:
        """A node per map, and one for the backbone's next layer if it has one. The weight of an edge is that of its
        features.
        """
        chosen = self.pruned(alpha, threshold)
        mix, of_inputs = chosen.kinds[MAPS], chosen.kinds[INPUTS].weights.flatten().tolist()
        nodes = []
        for t, name in enumerate(self.shapes):
            kept = [ChosenOperation(self.config.operations[o], float(mix.weights[t, o])) for o in mix.kept[t]]
            nodes.append((Edge(name, of_inputs[t], tuple(kept)),))
        if self._following:
            following = ChosenOperation("skip", 1.0)
            nodes.append((Edge(f"node{len(nodes) - 1}", of_inputs[-1], (following,)),))
        return Genotype(tuple(nodes), ())


def _weight(t: int, o: int) -> str:
    """The name in θ of the weight of operation ``o`` on map ``t``."""
    return f"maps.{t}.{o}.weight"


def _unit(values: Tensor) -> Tensor:
    """p(v) at unit length: (n, d) -> (n, d)."""
    return F.normalize(values / (values.abs() + EPSILON).sqrt(), dim=1, eps=SHORTEST)


def _unit_onnx(writer: OnnxWriter, values: str, gain: float) -> str:
    """Write ``gain`` times ``_unit`` for values (n, d, 1, 1); the name of the result, (n, d)."""
    flat = writer.node("Flatten", [values])
    size = writer.node("Add", [writer.node("Abs", [flat]), writer.number(EPSILON)])
    power = writer.node("Div", [flat, writer.node("Sqrt", [size])])
    return writer.node("Mul", [writer.unit_length(power, SHORTEST), writer.number(gain)])
