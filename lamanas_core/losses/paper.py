"""The paper's loss networks (preset ``paper``): they map each example's logits and integer label to a loss."""

from typing import Literal, cast

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
    Another linear layer maps this to the example's loss; ``kind`` "lstm" has five LSTM layers between the two, whose
    initial states h₀ and c₀ are the label. The residual connection adds the example's cross-entropy to the first
    linear layer's output, before its ELU (``residual`` "first_layer", as the paper has it), or to the loss, followed by
    another ELU ("output"). Weight matrices are initialised orthogonally, biases with zeros.
    """

    def __init__(
        self,
        kind: str,
        residual: Literal["none", "first_layer", "output"],
        hidden: int,
        ways: int,
        generator: torch.Generator | None,
    ) -> None:
        super().__init__()
        self.kind, self.residual, self.ways = kind, residual, ways
        self.embedding = nn.Linear(ways + 1, hidden)
        self.layers = nn.ModuleList(nn.LSTMCell(hidden, hidden) for _ in range(LSTM_LAYERS if kind == "lstm" else 0))
        self.output = nn.Linear(hidden, 1)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.orthogonal_(parameter, generator=generator)
            else:
                nn.init.zeros_(parameter)

    def forward(self, logits: Tensor, labels: Tensor, progress: float, state: LossState) -> tuple[Tensor, LossState]:
        label = labels.to(logits)[:, None]
        embedded = self.embedding(torch.cat([logits, label], dim=1))
        if self.residual == "first_layer":
            embedded = embedded + F.cross_entropy(logits, labels, reduction="none")[:, None]
        hidden = F.elu(embedded)
        for layer in self.layers:
            start = label.expand_as(hidden)
            hidden = lstm_cell(cast(nn.LSTMCell, layer), hidden, (start, start))[0]
        value = self.output(hidden).squeeze(1)
        if self.residual == "output":
            value = F.elu(value + F.cross_entropy(logits, labels, reduction="none"))
        return value.mean(), None
