"""The paper's loss networks (preset ``paper``): they map each example's logits and integer label to a loss."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lamanas_core.losses.invariant import LossState, lstm_cell

LSTM_LAYERS = 5


class PaperLoss(nn.Module):
    """The loss network L_φ of the paper's Section 5 for a fixed number of classes, ``ways``. Its parameters are φ.

    ``forward(logits, labels, progress, state) -> (loss, None)``: logits float (n, ways), labels int64 (n,); the loss is
    a scalar, the mean over the n examples. ``progress`` and ``state`` are ignored: nothing carries over between inner
    steps.

    An example's logits and its label, as one number, are concatenated and embedded by a linear layer and an ELU.
    ``kind`` "lstm" has five LSTM layers whose initial states h₀ and c₀ are the label; "fnn" has one hidden layer. With
    ``residual``, the example's cross-entropy is added before the final ELU. Weight matrices are initialised
    orthogonally, biases with zeros.
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
