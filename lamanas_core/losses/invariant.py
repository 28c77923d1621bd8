"""The learned loss L_φ for any number of classes, invariant to their order (preset ``serving``)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.config import LossKind

LossState = tuple[Tensor, Tensor] | None
FEATURES = 10
ALONE = -3.0  # the initial logarithm of the gate for an image that is the only one of its class


def features(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """L_φ's inputs, float (n, 10), which do not depend on the order of the classes.

    ``logits``: float (n, ways), ways at least 2; ``labels``: int64 (n,); ``progress``: k / K, in 0..1. The features of
    an example, scaled to comparable magnitudes:

    1. the true class's logit minus the log-sum-exp of the others;
    2. the true class's logit minus the largest of the others;
    3. its cross-entropy;
    4. the standard deviation of the other logits;
    5. the cross-entropy averaged over all examples;
    6. its cross-entropy minus that average;
    7. the logarithm of the number of classes;
    8. ``progress``;
    9. the reciprocal of the number of images of its class;
    10. 1 if it is the only image of its class, otherwise 0. Its logits are then not leave-one-out, so that its
        cross-entropy is hardly informative.
    """
    ways = logits.shape[1]
    counts = (labels[:, None] == torch.arange(ways, device=labels.device)).sum(0).to(logits)[labels]
    true = logits.gather(1, labels[:, None]).squeeze(1)
    # The columns of all classes except the true one, in order.
    columns = torch.arange(ways - 1, device=labels.device).expand(len(labels), -1)
    others = logits.gather(1, columns + (columns >= labels[:, None]))
    rest = others.logsumexp(1)
    entropy = F.cross_entropy(logits, labels, reduction="none")
    average = entropy.mean().expand_as(entropy)
    spread = (others - others.mean(1, keepdim=True)).square().mean(1)
    constant = torch.ones_like(true)
    values = [
        (true - rest) / 5,
        (true - others.amax(1)) / 5,
        entropy,
        torch.sqrt(spread + 1e-4) / 5,
        average,
        entropy - average,
        constant * (torch.log(torch.tensor(float(ways))).item() / 4),
        constant * progress,
        1 / counts,
        (counts == 1).to(true),
    ]
    return torch.stack(values, dim=1)


def lstm_cell(cell: nn.LSTMCell, x: Tensor, state: LossState) -> tuple[Tensor, Tensor]:
    """``cell(x, state)`` from operations that ``torch.func.vmap`` can batch and that can be differentiated twice.

    ``x``: (n, inputs). ``state``: h and c, each (n, hidden), or None for zeros. Returns the new h and c.
    """
    h, c = state if state is not None else (x.new_zeros(len(x), cell.hidden_size),) * 2
    gates = F.linear(h, cell.weight_hh, cell.bias_hh) + F.linear(x, cell.weight_ih, cell.bias_ih)
    input_gate, forget_gate, candidate, output_gate = gates.chunk(4, dim=1)
    c = forget_gate.sigmoid() * c + input_gate.sigmoid() * candidate.tanh()
    return output_gate.sigmoid() * c.tanh(), c


class LearnedLoss(nn.Module):
    """The loss network L_φ for any number of classes. Its parameters are φ.

    ``forward(logits, labels, progress, state) -> (loss, state)``: logits float (n, ways), labels int64 (n,); the loss
    is a scalar, the mean over the n examples. See ``features`` for ``progress``.

    ``kind`` "fnn" maps an example's features to its loss. "lstm" has a state per example, h and c, each (n, hidden),
    that carries over between the K steps, so that it can follow the course of the adaptation. "cross_entropy" is plain
    cross-entropy and has no parameters. With ``residual``, the example's cross-entropy is added before the final ELU,
    times a strength per example, the exponential of a linear gate on its features: the same φ can take large steps on
    informative support sets and small ones on others.

    Weight matrices are initialised orthogonally, biases with zeros, and the output layer is scaled down to 0.1. The
    initial strength is 1, except for images that are the only one of their class (``ALONE``).
    """

    def __init__(self, kind: LossKind, residual: bool, hidden: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.kind, self.residual = kind, residual
        if kind == "cross_entropy":
            return
        self.embedding = nn.Linear(FEATURES, hidden)
        self.hidden = nn.LSTMCell(hidden, hidden) if kind == "lstm" else nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 1)
        self.gate = nn.Linear(FEATURES, 1)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.output.weight.mul_(0.1)
            self.gate.weight.zero_()
            self.gate.weight[0, -1] = ALONE

    def forward(self, logits: Tensor, labels: Tensor, progress: float, state: LossState) -> tuple[Tensor, LossState]:
        entropy = F.cross_entropy(logits, labels, reduction="none")
        if self.kind == "cross_entropy":
            return entropy.mean(), None
        inputs = features(logits, labels, progress)
        strength = self.gate(inputs).squeeze(1).exp()
        embedded = F.elu(self.embedding(inputs))
        if isinstance(self.hidden, nn.LSTMCell):
            state = lstm_cell(self.hidden, embedded, state)
            embedded = state[0]
        else:
            embedded = F.elu(self.hidden(embedded))
        value = self.output(embedded).squeeze(1)
        return F.elu(value + strength * entropy if self.residual else value).mean(), state
