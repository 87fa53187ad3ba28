"""Whose code a node's task is, and whether its model is the network's.

A genesis names a task, and never where its code is: that says the owner of a node, in `node.toml` or by a command, or
hands it over (`p2pnode.fit`). What others write into a genesis runs nothing but tasks that are built in, or installed
as plug-ins.

Who makes the genesis writes into it what the model is and what it begins as, by digest, and the weights beside it
(`start.safetensors`). They count, whatever a node's own code would begin with; where they are missing, what that code
draws by the genesis' seed has to come to the same.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis, Model
from p2pnode.home import Home
from p2pnode.learning import weights
from p2pnode.learning.catalogue import TaskDefaults, find, known
from p2pnode.learning.local import trainer_of
from p2pnode.learning.own import built_own, own
from p2pnode.learning.source import anywhere, names_code
from p2pnode.learning.task import Task, build, initial
from p2pnode.learning.trainer import Trainer


@dataclass(frozen=True)
class Proposal:
    """What a genesis, and the homes of its members, are to say of a task.

    Args:
        defaults: how it trains well.
        source: where its code is, for `node.toml`; None where everybody has it.
        model: the genesis' table `training.model`.
        start: the safetensors file of the weights that the network begins with.
    """

    defaults: TaskDefaults
    source: str | None
    model: dict[str, Any]
    start: bytes


def propose(text: str, data_dir: Path | None, seed: int, start: Path | None) -> Proposal:
    """A task for a new network, with the weights it begins with: given ones, or those that the seed draws.

    Args:
        text: a task of the catalogue, or `FILE.py:NAME` or `MODULE:NAME`.
        data_dir: its files, if it needs any to make a model.
        seed: of the genesis.
        start: a safetensors file of weights.

    Raises:
        ConfigError: if there is no such task, its code does not run, or the weights are another model's.
    """
    mine = own(text) if names_code(text) else None
    # One's own needs no data for its model: they may lie on the members' machines only.
    module = initial(build(text, data_dir).factory if mine is None else mine.factory, seed)
    if start is not None:
        weights.fill(module, weights.read(start)[0], start)
    defaults = find(text) if mine is None else mine.defaults
    return Proposal(
        defaults,
        anywhere(text) if mine is not None and mine.loss is not None else None,
        asdict(weights.fingerprint(module)),
        weights.packed(module, {"task": defaults.name}),
    )


def assigned(home: Home, genesis: Genesis, config: NodeConfig, given: Task | None = None) -> Task:
    """The task that a node is to train: of its owner's code or the catalogue's, beginning as the genesis says.

    Args:
        home: may hold the weights to begin with.
        genesis: names the task and its model.
        config: may say where its code is.
        given: what the owner handed over instead.

    Raises:
        ConfigError: if there is no code for it, or its model is another, or begins otherwise.
    """
    task = _chosen(home, genesis, config) if given is None else given
    if task.name != genesis.training.task:
        raise ConfigError(
            f"task = {task.name!r}: {home.genesis} is of {genesis.training.task!r}. Remedy: name that one's code, or "
            "take the genesis of this one"
        )
    model = genesis.training.model
    if model is not None:
        _require_layout(weights.fingerprint(task.model(genesis.seed)), model, home)
    if home.start.exists():
        task = task.starting(weights.read(home.start)[0], home.start)
    if model is not None and weights.fingerprint(task.model(genesis.seed)).start != model.start:
        raise ConfigError(
            f"model: it begins with other weights than the genesis says. Remedy: copy {home.start.name} from who made "
            f"the genesis to {home.start}"
        )
    return task


def enrolled(
    home: Home,
    genesis: Genesis,
    config: NodeConfig,
    me: int,
    given: Task | None = None,
    prepare: Callable[[Task], Task] | None = None,
) -> Trainer:
    """The trainer of a node, as its home says.

    Args:
        home, genesis, config, given: as in `assigned`.
        me: which member it is.
        prepare: makes what to train on of the task; None leaves it as it is.

    Raises:
        ConfigError: as `assigned`; or if the device is not there, or there is too little data.
        TrainingError: if the model cannot be one vector.
    """
    task = assigned(home, genesis, config, given)
    indices = task.part(me, len(genesis.members), genesis.seed, genesis.training.alpha)
    return trainer_of(
        genesis.training,
        genesis.plan,
        task if prepare is None else prepare(task),
        indices,
        genesis.seed,
        me,
        config.device,
        autocast=config.autocast,
        pieces=config.pieces,
    )


def _chosen(home: Home, genesis: Genesis, config: NodeConfig) -> Task:
    data_dir = Path(config.data_dir) if config.data_dir else None
    if config.task is not None:
        return built_own(config.task, data_dir)
    name = genesis.training.task
    if genesis.training.model is not None and name not in known():
        raise ConfigError(
            f"task = {name!r}: {home.genesis} names a task of somebody's own, and nothing here says where its code is. "
            f'Remedy: add task = "FILE.py:NAME" to {home.config}, run it by `p2pnode run {home.path} --task '
            "FILE.py:NAME`, or by p2pnode.fit"
        )
    return build(name, data_dir)


def _require_layout(mine: weights.Fingerprint, model: Model, home: Home) -> None:
    if mine.layout != model.layout:
        sizes = f"{mine.parameters:,} parameters are exchanged, in {home.genesis} {model.parameters:,}"
        what = sizes if mine.parameters != model.parameters else "names, shapes or dtypes of its weights differ"
        raise ConfigError(
            f"model: it is another than the genesis': {what}. Remedy: take the code of who made the genesis, or make a "
            "genesis of this model"
        )
