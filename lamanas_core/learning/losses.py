"""The learned loss L_φ for any number of classes, in any order (preset ``serving``)."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LossKind = Literal["cross_entropy", "fnn", "lstm"]
State = tuple[Tensor, Tensor] | None
FEATURES = 8


def features(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """What L_φ sees of each example, (n, 8): nothing here depends on the order of the classes.

    The true class's logit over the log-sum and over the largest of the others, cross-entropy, the others' spread, the
    same cross-entropy averaged over the task and the example's distance from it, log of the number of classes, and how
    far the K steps have come (0 to 1). ``logits`` (n, ways), ``labels`` int64 (n,).
    """
    ways = logits.shape[1]
    own = F.one_hot(labels, ways).bool()
    true = logits[own]
    others = logits[~own].view(len(labels), ways - 1)
    rest = others.logsumexp(1)
    entropy = F.cross_entropy(logits, labels, reduction="none")
    average = entropy.mean().expand_as(entropy)
    spread = (others - others.mean(1, keepdim=True)).square().mean(1)
    constant = torch.ones_like(true)
    columns = [
        (true - rest) / 5,
        (true - others.amax(1)) / 5,
        entropy,
        torch.sqrt(spread + 1e-4) / 5,
        average,
        entropy - average,
        constant * (torch.log(torch.tensor(float(ways))).item() / 4),
        constant * progress,
    ]
    return torch.stack(columns, dim=1)


class LearnedLoss(nn.Module):
    """φ. ``forward(logits, labels, progress, state) -> (loss, state)``, the loss a scalar.

    ``fnn`` maps an example's features to its loss. ``lstm`` carries a state per example along the K steps, so that it
    sees the course of the adaptation and can stop in time. With ``residual``, cross-entropy is added before the ELU.
    Both start out orthogonal, with a small output layer.
    """

    def __init__(self, kind: LossKind, residual: bool, hidden: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.kind, self.residual = kind, residual
        if kind == "cross_entropy":
            return
        self.embedding = nn.Linear(FEATURES, hidden)
        self.hidden = nn.LSTMCell(hidden, hidden) if kind == "lstm" else nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 1)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)
        with torch.no_grad():
            self.output.weight.mul_(0.1)

    def forward(self, logits: Tensor, labels: Tensor, progress: float, state: State) -> tuple[Tensor, State]:
        entropy = F.cross_entropy(logits, labels, reduction="none")
        if self.kind == "cross_entropy":
            return entropy.mean(), None
        embedded = F.elu(self.embedding(features(logits, labels, progress)))
        if isinstance(self.hidden, nn.LSTMCell):
            state = self.hidden(embedded, state)
            embedded = state[0]
        else:
            embedded = F.elu(self.hidden(embedded))
        value = self.output(embedded).squeeze(1)
        return F.elu(value + entropy if self.residual else value).mean(), state
