"""Meta-training that is distributed among processes, as torchrun starts them."""

import multiprocessing
import os
import statistics
import time
from multiprocessing.connection import Connection

import torch

from benchmarks.installation import free_port
from benchmarks.train_tasks import task_of
from lamanas_core.adapt.inner import TaskLearner
from lamanas_core.adapt.parameters import initial_parameters
from lamanas_core.config import Config
from lamanas_core.meta.maml import maml
from lamanas_core.train.distributed import joined

META_BATCH = 2


def tasks_per_second(config: Config, processes: int, runs: int) -> float:
    """Tasks per second of Algorithm 1, from the median of ``runs`` meta-batches of two tasks.

    The time includes the reduction of gradients (gloo). Each process has one thread. Raises RuntimeError if a process
    fails.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # torch is imported once for all processes
    ours, theirs = context.Pipe(duplex=False)
    port = free_port()
    started = [
        context.Process(target=_train, args=(config, rank, processes, port, runs, theirs)) for rank in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    if any(process.exitcode for process in started):
        raise RuntimeError("a process of the training benchmark failed (see above)")
    seconds: list[float] = ours.recv()
    return META_BATCH / statistics.median(seconds)


def _train(config: Config, rank: int, size: int, port: int, runs: int, results: Connection) -> None:
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(size)}
    learner, parameters, task = TaskLearner.build(config), initial_parameters(config, 0), task_of(config)
    seconds = []
    with joined("cpu") as ranks:
        for _ in range(1 + runs):  # the first run allocates memory
            started = time.perf_counter()
            found = {
                number: maml(
                    learner, parameters, task, config.task_learner.steps, torch.Generator().manual_seed(number)
                )
                for number in ranks.mine(META_BATCH)
            }
            ranks.share(found, META_BATCH, parameters.named())
            seconds.append(time.perf_counter() - started)
        if ranks.first:
            results.send(seconds[1:])
