"""The paper's loss networks, in its own form: logits and raw label in, one loss an example out (preset ``paper``)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.losses.invariant import LossState, lstm_cell

LSTM_LAYERS = 5


class PaperLoss(nn.Module):
    """φ. ``forward(logits, labels, progress, state) -> (loss, None)``, the loss a scalar, the mean over examples.

    The input of an example is its logits ⊕ its label as a number, embedded by a linear layer and an ELU. ``lstm`` has
    five layers whose h₀ = c₀ are the label; ``fnn`` one hidden layer. With ``residual``, cross-entropy is added before
    the last ELU. Orthogonal initialisation. Fixed to ``ways`` classes; it carries nothing from step to step.
    """

    def __init__(self, kind: str, residual: bool, hidden: int, ways: int, generator: torch.Generator | None) -> None:
        super().__init__()
        self.kind, self.residual, self.ways = kind, residual, ways
        self.embedding = nn.Linear(ways + 1, hidden)
        if kind == "lstm":
            self.layers = nn.ModuleList(nn.LSTMCell(hidden, hidden) for _ in range(LSTM_LAYERS))
        else:
            self.layers = nn.ModuleList([nn.Linear(hidden, hidden)])
        self.output = nn.Linear(hidden, 1)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def forward(self, logits: Tensor, labels: Tensor, progress: float, state: LossState) -> tuple[Tensor, LossState]:
        label = labels.to(logits)[:, None]
        hidden = F.elu(self.embedding(torch.cat([logits, label], dim=1)))
        for layer in self.layers:
            if isinstance(layer, nn.LSTMCell):
                start = label.expand_as(hidden)
                hidden = lstm_cell(layer, hidden, (start, start))[0]
            else:
                hidden = F.elu(layer(hidden))
        value = self.output(hidden).squeeze(1)
        if self.residual:
            value = value + F.cross_entropy(logits, labels, reduction="none")
        return F.elu(value).mean(), None
