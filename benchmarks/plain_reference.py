"""A straightforward implementation of preset ``paper``: the reference for our speed.

The network, task learner and results are those of ``lamanas_core`` (a test compares them), without its optimizations:
contiguous tensors, torch's batch-norm, a ReLU in every operation, operations weighted and summed one by one, two
forward and backward passes per batch (for θ and for α), torch's Adam, no pruning.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.adapt.parameters import Parameters
from lamanas_core.config import Config, NetworkConfig
from lamanas_core.heads.registry import make_head

Alpha = Mapping[str, Tensor]


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False)


class Convolution(nn.Module):
    """ReLU, convolution, batch-norm; also used to prepare a cell's inputs and as the strided skip."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, bias=False)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(F.relu(x)))
        return y


class FactorisedConvolution(nn.Module):
    """ReLU, 1 x 5, 5 x 1, batch-norm."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.wide = nn.Conv2d(channels, channels, (1, 5), (1, stride), (0, 2), bias=False)
        self.tall = nn.Conv2d(channels, channels, (5, 1), (stride, 1), (2, 0), bias=False)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.tall(self.wide(F.relu(x))))
        return y


class SeparableConvolution(nn.Module):
    """ReLU, depthwise 3 x 3, pointwise, batch-norm."""

    def __init__(self, channels: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, stride, dilation, dilation, groups=channels, bias=False)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.pointwise(self.depthwise(F.relu(x))))
        return y


class DoubleSeparableConvolution(nn.Module):
    """Two separable convolutions, the first with the stride."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.first = SeparableConvolution(channels, stride)
        self.second = SeparableConvolution(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y


class Pooling(nn.Module):
    """Pooling 3 x 3, batch-norm."""

    def __init__(self, channels: int, stride: int, pool: type[nn.MaxPool2d] | type[nn.AvgPool2d]) -> None:
        super().__init__()
        options = {"count_include_pad": False} if pool is nn.AvgPool2d else {}
        self.pool = pool(3, stride, 1, **options)
        self.norm = _norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.pool(x))
        return y


def _operations(channels: int, stride: int) -> nn.ModuleList:
    """The seven of preset ``paper``, in its order."""
    return nn.ModuleList(
        [
            Pooling(channels, stride, nn.MaxPool2d),
            Pooling(channels, stride, nn.AvgPool2d),
            nn.Identity() if stride == 1 else Convolution(channels, channels, 1, stride),
            FactorisedConvolution(channels, stride),
            Convolution(channels, channels, 3, stride),
            DoubleSeparableConvolution(channels, stride),
            SeparableConvolution(channels, stride, dilation=2),
        ]
    )


class Cell(nn.Module):
    """Each node is the weighted sum of all operations on all earlier states; the output concatenates all nodes."""

    def __init__(self, network: NetworkConfig, kind: str, before: tuple[int, int], first_is_larger: bool) -> None:
        super().__init__()
        channels = network.channels
        self.kind, self.nodes = kind, network.nodes
        self.prepare0 = Convolution(before[0], channels, 1, 2 if first_is_larger else 1)
        self.prepare1 = Convolution(before[1], channels, 1, 1)
        self.edges = nn.ModuleList(
            _operations(channels, 2 if kind == "reduction" and source < 2 else 1)
            for node in range(network.nodes)
            for source in range(node + 2)
        )

    def forward(self, first: Tensor, second: Tensor, weights: Tensor) -> Tensor:
        states = [self.prepare0(first), self.prepare1(second)]
        edge = 0
        for node in range(self.nodes):
            total = torch.zeros(())
            for source in range(node + 2):
                for o, operation in enumerate(self.edges[edge].children()):
                    total = total + weights[edge, o] * operation(states[source])
                edge += 1
            states.append(total)
        return torch.cat(states[2:], dim=1)


class PlainNetwork(nn.Module):
    """The supernet, with the parameter names of ``lamanas_core``. ``forward(images, alpha, temperature)`` -> logits."""

    def __init__(self, network: NetworkConfig) -> None:
        super().__init__()
        channels = network.channels
        self.nodes = network.nodes
        self.stem = nn.Conv2d(network.image.channels, channels, 3, network.stem_stride, 1, bias=False)
        self.stem_norm = _norm(channels)
        self.cells = nn.ModuleList()
        before, first_is_larger = (channels, channels), False
        for kind in network.cells:
            self.cells.append(Cell(network, kind, before, first_is_larger))
            before, first_is_larger = (before[1], network.nodes * channels), kind == "reduction"
        self.head = nn.Linear(network.nodes * channels, network.ways)

    def forward(self, images: Tensor, alpha: Alpha, temperature: float) -> Tensor:
        x = self.stem_norm(self.stem(images))
        first, second = x, x
        for cell in self.cells:
            weights = mix(alpha, str(cell.kind), self.nodes, temperature)
            first, second = second, cell(first, second, weights)
        logits: Tensor = self.head(F.relu(second).mean(dim=(2, 3)))
        return logits


def mix(alpha: Alpha, kind: str, nodes: int, temperature: float) -> Tensor:
    """The weight of every operation, (edges, operations): its share times the probability that its input is chosen."""
    operations = torch.softmax(alpha[f"{kind}.operations"] / temperature, dim=1)
    inputs = [operations.new_ones(()), operations.new_ones(())]
    for node in range(1, nodes):
        probabilities = torch.softmax(alpha[f"{kind}.pairs.{node}"] / temperature, dim=0)
        chosen = list(combinations(range(node + 2), 2))
        for source in range(node + 2):
            inputs.append(sum((probabilities[i] for i, pair in enumerate(chosen) if source in pair), torch.zeros(())))
    return operations * torch.stack(inputs)[:, None]


class PlainLearner:
    """θ, α and φ of one client; ``adapt`` updates θ and α in place."""

    def __init__(self, config: Config, parameters: Parameters) -> None:
        self.task = config.task_learner
        self.end_temperature = config.network.temperature
        dtype = parameters.log_scale.dtype
        self.network = PlainNetwork(config.network).to(dtype)
        self.network.load_state_dict(parameters.theta)
        self.alpha = {name: value.clone().requires_grad_() for name, value in parameters.alpha.items()}
        self.loss = make_head(config.network).loss_network(config.task_learner, None).to(dtype)
        self.loss.load_state_dict(parameters.phi)
        self.of_theta = torch.optim.Adam(self.network.parameters(), self.task.theta_rate, betas=(0.0, 0.999))
        self.of_alpha = torch.optim.Adam(list(self.alpha.values()), self.task.alpha_rate, betas=(0.0, 0.999))

    def adapt(self, support: Tensor, labels: Tensor, batches: Sequence[Tensor]) -> list[float]:
        """One step of Eq. 2 per batch (rows of the support set, images (n, c, h, w)). Returns the loss before each."""
        count = len(batches)
        return [self.step(support[rows], labels[rows], k, count) for k, rows in enumerate(batches)]

    def step(self, images: Tensor, labels: Tensor, k: int, count: int) -> float:
        """Step ``k`` of ``count``: both gradients at the current θ and α, in one pass each, then both updates."""
        self.of_theta.zero_grad()
        self.loss_of(images, labels, k, count).backward()  # type: ignore[no-untyped-call]
        theta_gradients = [parameter.grad for parameter in self.network.parameters()]
        self.of_theta.zero_grad()
        self.of_alpha.zero_grad()
        loss = self.loss_of(images, labels, k, count)
        loss.backward()  # type: ignore[no-untyped-call]
        for parameter, gradient in zip(self.network.parameters(), theta_gradients, strict=True):
            parameter.grad = gradient
        self.of_theta.step()
        self.of_alpha.step()
        return float(loss.detach())

    def loss_of(self, images: Tensor, labels: Tensor, k: int, count: int) -> Tensor:
        """L_φ at step ``k`` of ``count``."""
        logits = self.network(images, self.alpha, self.temperature(k, count))
        value: Tensor = self.loss(logits, labels, k / count, None)[0]
        return value

    def temperature(self, k: int, count: int) -> float:
        """α's temperature at step ``k`` of ``count``: it falls linearly from the start to the end temperature."""
        start = self.end_temperature if self.task.start_temperature is None else self.task.start_temperature
        return start + (self.end_temperature - start) * (k / (count - 1) if count > 1 else 1.0)
