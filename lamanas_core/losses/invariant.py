"""The learned loss L_φ for any number of classes, in any order (preset ``serving``)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.config import LossKind

LossState = tuple[Tensor, Tensor] | None
FEATURES = 10
ALONE = -3.0  # log of the strength that the only image of a class starts out with


def features(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """What L_φ sees of each example, (n, 10): nothing here depends on the order of the classes.

    The true class's logit over the log-sum and over the largest of the others, cross-entropy, the others' spread, the
    same cross-entropy averaged over the task and the example's distance from it, log of the number of classes, how far
    the K steps have come (0 to 1), one over its class's number of images, and whether that is the only one (its
    prototype cannot leave it out then: its cross-entropy tells next to nothing). ``logits`` (n, ways), ``labels``
    int64 (n,).
    """
    ways = logits.shape[1]
    counts = (labels[:, None] == torch.arange(ways, device=labels.device)).sum(0).to(logits)[labels]
    true = logits.gather(1, labels[:, None]).squeeze(1)
    # The columns of all classes but the true one, in order.
    columns = torch.arange(ways - 1, device=labels.device).expand(len(labels), -1)
    others = logits.gather(1, columns + (columns >= labels[:, None]))
    rest = others.logsumexp(1)
    entropy = F.cross_entropy(logits, labels, reduction="none")
    average = entropy.mean().expand_as(entropy)
    spread = (others - others.mean(1, keepdim=True)).square().mean(1)
    constant = torch.ones_like(true)
    seen = [
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
    return torch.stack(seen, dim=1)


def lstm_cell(cell: nn.LSTMCell, x: Tensor, state: LossState) -> tuple[Tensor, Tensor]:
    """``cell(x, state)`` of operations that ``torch.func.vmap`` can batch and that have second derivatives everywhere.

    x (n, inputs); the state None, which is zeros, or h and c, each (n, hidden); the same out.
    """
    h, c = state if state is not None else (x.new_zeros(len(x), cell.hidden_size),) * 2
    gates = F.linear(h, cell.weight_hh, cell.bias_hh) + F.linear(x, cell.weight_ih, cell.bias_ih)
    into, forget, value, out = gates.chunk(4, dim=1)
    c = forget.sigmoid() * c + into.sigmoid() * value.tanh()
    return out.sigmoid() * c.tanh(), c


class LearnedLoss(nn.Module):
    """φ. ``forward(logits, labels, progress, state) -> (loss, state)``, the loss a scalar.

    ``fnn`` maps an example's features to its loss. ``lstm`` carries a state per example along the K steps, so that it
    sees the course of the adaptation and can stop in time. With ``residual``, cross-entropy is added before the ELU,
    times a strength of each example's own (exp of a linear gate on its features): so one φ can step far where the
    support set says much, and stay where it says little. Both start out orthogonal, with a small output layer; the
    gate is open, but for classes of a single image.
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
        seen = features(logits, labels, progress)
        strength = self.gate(seen).squeeze(1).exp()
        embedded = F.elu(self.embedding(seen))
        if isinstance(self.hidden, nn.LSTMCell):
            state = lstm_cell(self.hidden, embedded, state)
            embedded = state[0]
        else:
            embedded = F.elu(self.hidden(embedded))
        value = self.output(embedded).squeeze(1)
        return F.elu(value + strength * entropy if self.residual else value).mean(), state
