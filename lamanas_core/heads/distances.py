"""Fitted heads that measure how far an image is from each class, and so whether it belongs to none of them."""

import math
from abc import abstractmethod
from dataclasses import dataclass, field, replace
from typing import Self

import torch
from torch import Tensor

from lamanas_core.config import Novelty
from lamanas_core.heads.base import FittedHead, Support
from lamanas_core.onnx_writer import OnnxWriter, array

NEAREST = 1e-9  # a lower bound on distances, whose logarithm is taken


@dataclass(frozen=True)
class DistanceHead(FittedHead):
    """A fitted head with a mean for each class.

    ``sizes``: the number of images of each class, (ways,), see ``prototypes.class_means``. ``novelty``: that of the
    episode, with ``relative`` 0 (``Novelty.of_episode``), None if it is not measured.
    """

    sizes: Tensor
    novelty: Novelty | None = field(default=None, kw_only=True)

    @abstractmethod
    def distances(self, features: Tensor) -> Tensor:
        """Features (n, d) -> (n, ways): the squared distance to each class mean, in units that the head defines."""

    @abstractmethod
    def distances_onnx(self, writer: OnnxWriter, features: str) -> str:
        """Write ``distances``, after the graph output ``logits`` has been written; the name of the result."""

    def log_distance(self, features: Tensor, spread: float) -> Tensor:
        """Features (n, d) -> (n,): the logarithm of the distance to the nearest class mean, each divided by what is
        usual for the number of its images (see ``config.Novelty``).
        """
        return self._per_usual(features, spread).amin(1).clamp(min=NEAREST).log()

    def reference(self, support: Support, spread: float) -> float:
        """The mean of ``log_distance`` of the labelled images to the classes other than their own, so that large
        classes count more. Infinite if there is only one class.
        """
        to_others = self._per_usual(support.features, spread).scatter(1, support.labels[:, None], torch.inf)
        return float(to_others.amin(1).clamp(min=NEAREST).log().mean())

    def with_novelty(self, novelty: Novelty, support: Support) -> Self:
        """This head with calibrated novelty as it is in the episode of ``support``. With one class there is nothing
        that novelty could be relative to: it is not measured.
        """
        if novelty.relative == 0:
            return replace(self, novelty=novelty)
        reference = self.reference(support, novelty.spread)
        return replace(self, novelty=novelty.of_episode(reference) if math.isfinite(reference) else None)

    def log_odds(self, features: Tensor) -> Tensor | None:
        """Features (n, d) -> (n,): log(v / (1 - v)) of the novelty v of each image; None if it is not measured."""
        if self.novelty is None:
            return None
        return self.novelty.slope * (self.log_distance(features, self.novelty.spread) - self.novelty.centre)

    def onnx(self, writer: OnnxWriter, features: str) -> None:
        """Also write the outputs ``novelty``, float (n,), and ``known``, bool (n,), if they are calibrated."""
        super().onnx(writer, features)
        novelty = self.novelty
        if novelty is None:
            return
        distances = self.distances_onnx(writer, features)
        relative = writer.node("Div", [distances, writer.constant(array(self._usual(novelty.spread)))])
        nearest = writer.node("ReduceMin", [relative, writer.integers(1)], keepdims=0)
        logarithm = writer.node("Log", [writer.node("Max", [nearest, writer.number(NEAREST)])])
        above = writer.node("Sub", [logarithm, writer.number(novelty.centre)])
        writer.node("Sigmoid", [writer.node("Mul", [above, writer.number(novelty.slope)])], output="novelty")
        writer.node("LessOrEqual", ["novelty", writer.number(novelty.threshold)], output="known")

    def _per_usual(self, features: Tensor, spread: float) -> Tensor:
        return self.distances(features) / self._usual(spread)

    def _usual(self, spread: float) -> Tensor:
        return (1 + 1 / self.sizes).to(self.weight) ** spread
