"""Attacks on data: what a liar trains on, honestly in all else."""

from collections.abc import Collection
from dataclasses import replace

from p2pnode.byzantine import parse
from p2pnode.learning.task import Task


def poisoned(task: Task, attacks: Collection[str]) -> Task:
    """The task that a liar trains on: with labels turned round if `label-flip` is among its attacks, else as it is."""
    return flipped(task) if any(parse(attack).name == "label-flip" for attack in attacks) else task


def flipped(task: Task) -> Task:
    """The same task with each training label y of C classes as C−1−y; what it is tested on is left as it is.

    Source: label flipping, as in the published experiments of MoNNA, arXiv 2209.10931.
    """
    last = int(task.data.labels.max())
    return replace(task, data=task.data.relabelled(lambda labels: last - labels))
