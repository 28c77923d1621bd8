"""Training with several processes (torchrun): each step's tasks are distributed, and their meta-gradients shared."""

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
# Rank 0 validates while the other ranks wait for it at the next step.
TIMEOUT = timedelta(hours=1)


@dataclass(frozen=True)
class Ranks:
    """This process's rank (0..``size``-1) among the ``size`` processes of the run. ``Ranks()``: a single process."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process has rank 0, which validates, writes files and reports progress."""
        return self.rank == 0

    def mine(self, count: int) -> range:
        """The indices of the tasks, of ``count``, that this process computes."""
        return range(self.rank, count, self.size)

    def share(self, found: dict[int, MetaGradient], count: int, like: dict[str, Tensor]) -> list[MetaGradient]:
        """All-gather: the meta-gradients of all ``count`` tasks, in the order of the tasks.

        ``found``: those that this process computed, by task. ``like``: tensors with the gradients' names and shapes.
        Each task is non-zero in one process only, so the sum over processes is exact, and the mean over tasks has the
        same bits for any number of processes.
        """
        if self.size == 1:
            return [found[i] for i in range(count)]
        sizes = [value.numel() for value in like.values()]
        device = next(iter(like.values())).device
        rows = torch.zeros(count, sum(sizes) + 1, device=device)
        for i, gradient in found.items():
            flat = [gradient.gradients[name].flatten() for name in like]
            rows[i] = torch.cat([*flat, rows.new_tensor([gradient.loss])])
        dist.all_reduce(rows)
        shared = []
        for row in rows:
            parts = row[:-1].split(sizes)
            gradients = {name: part.view_as(like[name]) for (name, part) in zip(like, parts, strict=True)}
            shared.append(MetaGradient(gradients, float(row[-1])))
        return shared

    def first_before_others(self, work: Callable[[], T]) -> T:
        """Run ``work`` in rank 0, then in the other ranks, which can read the files that rank 0 has written."""
        if self.size == 1:
            return work()
        if not self.first:
            dist.barrier()
        result = work()
        if self.first:
            dist.barrier()
        return result


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Join torchrun's process group, NCCL for GPUs and gloo for CPUs; without torchrun, a single process."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=TIMEOUT)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
