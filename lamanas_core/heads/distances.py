"""Fitted heads that measure how far an image is from each class, and so whether it belongs to none of them."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from lamanas_core.config import Calibration
from lamanas_core.heads.base import FittedHead
from lamanas_core.onnx_writer import OnnxWriter, array

NEAREST = 1e-9  # a lower bound on distances, whose logarithm is taken


@dataclass(frozen=True)
class DistanceHead(FittedHead):
    """A fitted head with a mean for each class.

    ``sizes``: the number of images of each class, (ways,), see ``prototypes.counted_sizes``.
    """

    sizes: Tensor

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
        return (self.distances(features) / self._usual(spread)).amin(1).clamp(min=NEAREST).log()

    def onnx(self, writer: OnnxWriter, features: str, calibration: Calibration) -> None:
        """Also write the outputs ``novelty``, float (n,), and ``known``, bool (n,), if they are calibrated."""
        super().onnx(writer, features, calibration)
        novelty = calibration.novelty
        if novelty is None:
            return
        distances = self.distances_onnx(writer, features)
        relative = writer.node("Div", [distances, writer.constant(array(self._usual(novelty.spread)))])
        nearest = writer.node("ReduceMin", [relative, writer.integers(1)], keepdims=0)
        logarithm = writer.node("Log", [writer.node("Max", [nearest, writer.number(NEAREST)])])
        above = writer.node("Sub", [logarithm, writer.number(novelty.centre)])
        writer.node("Sigmoid", [writer.node("Mul", [above, writer.number(novelty.slope)])], output="novelty")
        writer.node("LessOrEqual", ["novelty", writer.number(novelty.threshold)], output="known")

    def _usual(self, spread: float) -> Tensor:
        return (1 + 1 / self.sizes).to(self.weight) ** spread
