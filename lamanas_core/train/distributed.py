"""Several processes that train as one (torchrun): who does which task of a step, and adding up what they found."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist

from lamanas_core.meta.gradient import MetaGradient

T = TypeVar("T")
# Rank 0 validates while the others wait for it at the next step.
PATIENCE = timedelta(hours=1)


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run. ``Ranks()`` is a run of one process."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """The one that validates, writes and tells."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        """The numbers of the tasks, of ``count``, that this process does."""
        return range(self.rank, count, self.size)

    def share(self, found: dict[int, MetaGradient], count: int, like: dict[str, Tensor]) -> list[MetaGradient]:
        """What all processes found, in the order of the tasks; ``found`` holds this one's, ``like`` names and shapes.

        A task's row is filled in by one process and zero in all others, so the sum over processes is exact: the mean
        over tasks has the same bits however many processes shared them out.
        """
        if self.size == 1:
            return [found[i] for i in range(count)]
        sizes = [value.numel() for value in like.values()]
        device = next(iter(like.values())).device
        rows = torch.zeros(count, sum(sizes) + 1, device=device)
        for i, one in found.items():
            rows[i] = torch.cat([*(one.gradients[name].flatten() for name in like), rows.new_tensor([one.loss])])
        dist.all_reduce(rows)
        shared = []
        for row in rows:
            parts = row[:-1].split(sizes)
            gradients = {name: part.view_as(like[name]) for (name, part) in zip(like, parts, strict=True)}
            shared.append(MetaGradient(gradients, float(row[-1])))
        return shared

    def first_before_others(self, work: Callable[[], T]) -> T:
        """``work`` done by rank 0, then, when it is through, by the others: they find what it has written."""
        if self.size == 1:
            return work()
        if not self.first:
            dist.barrier()
        done = work()
        if self.first:
            dist.barrier()
        return done


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The processes that torchrun started, gloo between CPUs and NCCL between GPUs; one process without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
