"""Synchronous data-parallel SGD by torch over gloo: the same task and batch, without a defence, signatures or TLS.

`python -m p2pnode.bench.ddp TASK DATA_DIR WORLD BATCH STEPS PORT` forks a process a rank, one thread each, and prints
the seconds of one step, first steps not counted.
"""

import os
import sys
import time
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from p2pnode.learning.partition import batch
from p2pnode.learning.task import Task, build

_WARM_STEPS = 3
_PATIENCE = timedelta(seconds=120)


def main() -> None:
    """Run all ranks, and end with 1 if one of them failed."""
    name, data_dir, *numbers = sys.argv[1:]
    world, size, steps, port = map(int, numbers)
    torch.set_num_threads(1)  # a thread pool does not survive a fork
    task = build(name, Path(data_dir) if data_dir else None)
    children = [_fork(task, rank, world, size, steps, port) for rank in range(world)]
    codes = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(any(codes))


def _fork(task: Task, rank: int, world: int, size: int, steps: int, port: int) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            seconds = _train(task, rank, world, size, steps, port)
            if rank == 0:
                os.write(1, f"{seconds}\n".encode())
            code = 0
        finally:
            os._exit(code)
    return child


def _train(task: Task, rank: int, world: int, size: int, steps: int, port: int) -> float:
    """Train as one rank; the seconds of a step."""
    store = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world, timeout=_PATIENCE)
    model = DistributedDataParallel(task.model(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    part = task.part(rank, world, 0, None)
    for step in range(_WARM_STEPS + steps):
        if step == _WARM_STEPS:
            began = time.perf_counter()
        rows = part[batch(len(part), size, 0, rank, step)]
        optimizer.zero_grad()
        features, labels = task.data.train(rows)
        loss = task.loss(model(features), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    distributed.barrier()
    seconds = time.perf_counter() - began
    distributed.destroy_process_group()
    return seconds / steps


if __name__ == "__main__":
    main()
