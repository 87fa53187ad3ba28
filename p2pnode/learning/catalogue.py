"""The names of the tasks and their default settings. Standard library only: the command line checks settings by it.

A new task is a row here and a builder in `p2pnode.learning.task.BUILDERS`; or, from another distribution, a plug-in:
an object with `defaults`, a `TaskDefaults`, and `build`, a function of the data folder or None that returns a `Task`.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from p2pnode.errors import ConfigError
from p2pnode.plugins import discover, distribution_of, load

GROUP = "p2pnode.tasks"
"""Entry points of plug-in tasks, named as the tasks are."""


@dataclass(frozen=True)
class TaskDefaults:
    """Settings that train the task well when the user gives none.

    Attributes:
        name: What the user writes.
        summary: One line for help texts.
        needs_data_dir: Whether its data are files that the user must provide.
        steps: Local SGD steps of a whole run.
        local_batch: Samples in a mini-batch of one node.
        momentum: Polyak β in [0, 1).
        lr: Step size γ_0 > 0.
        lr_decay_every: Steps; γ_t = lr / (1 + ⌊t / lr_decay_every⌋). 0 keeps γ constant.
        parameters: d, for listings; None where it is not told.
    """

    name: str
    summary: str
    needs_data_dir: bool
    steps: int
    local_batch: int
    momentum: float
    lr: float
    lr_decay_every: int
    parameters: int | None = None


# digits: 7 nodes over an i.i.d. split, trimmed mean with f = 1 every step, reach a test accuracy of 0.96 by step 100
# and 0.967 to 0.981 by step 200 (seeds 0 to 4); lr 0.1 only just reaches 0.95, and 1.0 gains nothing over 0.5.
# mnist, fashion-mnist: batch, momentum and step size of MoNNA's MNIST experiments (arXiv 2209.10931, released
# scripts), which run 600 steps with 26 nodes; 300 suffice to see what an attack does.
# mnist-mlp: of the distributed momentum experiments (arXiv 2003.00010, released scripts), whose lr of 0.5 is of a
# momentum that accumulates: m ← βm + g is 1/(1−β) times ours.
# regression: the step size of the benchmark, 1.5/(t+1), is of a sum of five gradients; here it is of their mean.
TASKS: dict[str, TaskDefaults] = {
    task.name: task
    for task in (
        TaskDefaults(
            name="digits",
            summary="8x8 handwritten digits, embedded: needs no files, trains in seconds",
            needs_data_dir=False,
            steps=200,
            local_batch=32,
            momentum=0.9,
            lr=0.5,
            lr_decay_every=0,
            parameters=4_810,
        ),
        TaskDefaults(
            name="mnist",
            summary="28x28 handwritten digits, a convolutional network of 431,080 parameters",
            needs_data_dir=True,
            steps=300,
            local_batch=25,
            momentum=0.99,
            lr=0.75,
            lr_decay_every=50,
            parameters=431_080,
        ),
        TaskDefaults(
            name="mnist-mlp",
            summary="28x28 handwritten digits, a perceptron of 79,510 parameters",
            needs_data_dir=True,
            steps=300,
            local_batch=83,
            momentum=0.9,
            lr=5.0,
            lr_decay_every=0,
            parameters=79_510,
        ),
        TaskDefaults(
            name="fashion-mnist",
            summary="28x28 articles of clothing, the same network as mnist, a harder task",
            needs_data_dir=True,
            steps=300,
            local_batch=25,
            momentum=0.99,
            lr=0.75,
            lr_decay_every=50,
            parameters=431_080,
        ),
        TaskDefaults(
            name="regression",
            summary="a plane through six agents' observations, one each, the last to lie; accuracy 1 is within epsilon",
            needs_data_dir=False,
            steps=500,
            local_batch=1,
            momentum=0.0,
            lr=7.5,
            lr_decay_every=1,
            parameters=2,
        ),
    )
}


def find(name: str) -> TaskDefaults:
    """The defaults of the task of that name: built in, or a plug-in's.

    Raises:
        ConfigError: if there is none, naming the nearest and all; or a plug-in is none.
    """
    if name in TASKS:
        return TASKS[name]
    if name in plugged():
        defaults: TaskDefaults = plugin(name).defaults
        return defaults
    near = get_close_matches(name, known(), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if name.endswith(".py"):
        hint = "of your own code name the task too, as FILE.py:NAME; or "
    raise ConfigError(f"task = {name!r}: no such task. Remedy: {hint}choose one of {', '.join(known())}")


def known() -> list[str]:
    """Names of all tasks, built in and of plug-ins."""
    return [*TASKS, *plugged()]


def plugged() -> list[str]:
    """Names of the tasks that plug-ins offer; none of them is imported.

    Raises:
        ConfigError: if one has the name of a built-in task.
    """
    names = discover(GROUP)
    for name in names:
        if name in TASKS:
            raise ConfigError(
                f"{GROUP}: {distribution_of(names[name])} offers a task {name!r}, which is built in. Remedy: rename it "
                "there, or uninstall it"
            )
    return list(names)


def plugin(name: str) -> Any:  # noqa: ANN401  of another distribution; what it must have is checked here
    """The plug-in task of that name: an object with `defaults` and `build`.

    Raises:
        ConfigError: if there is none, or it lacks one of them.
    """
    found = load(GROUP, name)
    if not isinstance(getattr(found, "defaults", None), TaskDefaults) or not callable(getattr(found, "build", None)):
        raise ConfigError(
            f"{GROUP}: the plug-in {name!r} is no task: it needs `defaults`, a TaskDefaults, and `build`, a function "
            "of the data folder. Remedy: mend or uninstall it"
        )
    if found.defaults.name != name:
        raise ConfigError(
            f"{GROUP}: the plug-in {name!r} calls its task {found.defaults.name!r}. Remedy: give both one name there"
        )
    return found
