"""What changes during a training run: its parameters, their running average, the optimizers and the counts."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lamanas_core.adapt.parameters import Parameters
from lamanas_core.config import TrainingConfig
from lamanas_core.recipe import Recipe
from lamanas_core.train import checkpoint


@dataclass
class RunState:
    """The state of a run, which is saved in checkpoints.

    ``average``: the running average of the parameters, which becomes the model. ``warm_up`` and ``meta``: the
    optimizers of the two stages. ``seconds``: the time spent on training. ``loss`` and ``validation``: the latest loss
    of an epoch and the latest accuracy. ``skipped``: the tasks without a finite gradient so far; ``skipped_in_a_row``:
    those since the last task with one.
    """

    parameters: Parameters
    average: Parameters
    warm_up: torch.optim.Optimizer
    meta: torch.optim.Optimizer
    generator: torch.Generator
    epoch: int = 0
    seconds: float = 0.0
    loss: float | None = None
    validation: float | None = None
    skipped: int = 0
    skipped_in_a_row: int = 0

    def save(self, folder: Path, config: TrainingConfig, recipe: Recipe) -> None:
        """Write a checkpoint to ``folder``, with the choices of the run."""
        tensors = {f"now.{name}": value for name, value in self.parameters.named().items()}
        tensors |= {f"average.{name}": value for name, value in self.average.named().items()}
        tensors |= {f"warm_up.{name}": value for name, value in checkpoint.optimizer_tensors(self.warm_up).items()}
        tensors |= {f"meta.{name}": value for name, value in checkpoint.optimizer_tensors(self.meta).items()}
        state = {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "loss": self.loss,
            "validation": self.validation,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }
        settings = {"config": asdict(config), "recipe": recipe.to_json()}
        checkpoint.save(folder, tensors | {"generator": self.generator.get_state()}, state | settings)

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continue from a checkpoint, as ``checkpoint.load`` returns it."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}

        with torch.no_grad():
            for prefix, parameters in (("now.", self.parameters), ("average.", self.average)):
                saved = part(prefix)
                for name, value in parameters.named().items():
                    value.copy_(saved[name])
        checkpoint.restore_optimizer(self.warm_up, part("warm_up."))
        checkpoint.restore_optimizer(self.meta, part("meta."))
        self.generator.set_state(tensors["generator"])
        self.epoch, self.seconds, self.validation = state["epoch"], state["seconds"], state["validation"]
        # Checkpoints of earlier versions lack these.
        self.loss = state.get("loss")
        self.skipped, self.skipped_in_a_row = state.get("skipped", 0), state.get("skipped_in_a_row", 0)


def begin(config: TrainingConfig, parameters: Parameters, recipe: Recipe, fixed: Collection[str]) -> RunState:
    """A run before its first epoch. ``fixed``: the tensors of θ that are not trained."""
    trained = {name: value for name, value in parameters.theta.items() if name not in fixed}
    theta = list(trained.values())
    alpha, phi = list(parameters.alpha.values()), list(parameters.phi.values())
    log_rates, scale = [parameters.theta_log_rates, parameters.alpha_log_rates], [parameters.log_scale]
    rates = recipe.reptile if config.meta == "reptile" else recipe.maml
    # Without a rate, α keeps every bit in both stages, whatever the gradient of the size penalty.
    warm_up_alpha_rate, alpha_rate = (
        0.0 if config.fixed_architecture else rate for rate in (recipe.warm_up.alpha_rate, rates.alpha_rate)
    )
    warm_up = torch.optim.AdamW(
        [
            {"params": theta, "lr": recipe.warm_up.theta_rate, "weight_decay": recipe.warm_up.theta_weight_decay},
            {"params": alpha, "lr": warm_up_alpha_rate, "weight_decay": 0.0},
            {"params": scale, "lr": recipe.warm_up.scale_rate, "weight_decay": 0.0},
        ],
        betas=(recipe.warm_up.beta_1, recipe.warm_up.beta_2),
    )
    groups = [(theta, rates.theta_rate), (alpha, alpha_rate), (phi, rates.phi_rate)]
    meta: torch.optim.Optimizer
    if config.meta == "reptile":  # step sizes and scale remain constant
        if not recipe.reptile.head_moves:
            groups[0] = ([value for name, value in trained.items() if not name.startswith("head.")], rates.theta_rate)
        groups.append(([*log_rates, *scale], 0.0))
        meta = torch.optim.SGD([{"params": part, "lr": rate} for part, rate in groups if part])
    else:
        groups += [(log_rates, recipe.maml.log_rates_rate), (scale, recipe.maml.scale_rate)]
        betas = (recipe.maml.beta_1, recipe.maml.beta_2)
        meta = torch.optim.Adam([{"params": part, "lr": rate} for part, rate in groups if part], betas=betas)
    for group in (*warm_up.param_groups, *meta.param_groups):
        group["peak"] = group["lr"]
    average = parameters.map(lambda tensor: tensor.detach().clone())
    return RunState(parameters, average, warm_up, meta, torch.Generator().manual_seed(config.seed))
