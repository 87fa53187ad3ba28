"""What `p2pnode plan` tells: the settings checked down to their theorem, this machine measured, the two combined."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from p2pnode.calibration import calibrate
from p2pnode.config import NodeConfig
from p2pnode.errors import ConfigError
from p2pnode.forecast import Network, memory, seconds_apart, seconds_here, share, tally, tolerated
from p2pnode.genesis import Choice, Training
from p2pnode.learning.task import build
from p2pnode.recipe import choose
from p2pnode.settings import check
from p2pnode.testnet import EVALUATIONS
from protocols.committee import MEMBERS_MAX, Committee


def foretell(values: Mapping[str, Any], nodes: int, data_dir: Path | None, link: float | None) -> dict[str, Any]:
    """All that is known of a network before it runs.

    Args:
        values: `f`, `recipe`, `vectors`, `training` of its genesis.
        nodes: n.
        data_dir: folder of the task's files.
        link: bits a second of each node's link; None where all are on this machine.

    Raises:
        ConfigError: if a value is wrong, or no theorem covers them; nothing was measured.
    """
    f = values["f"]
    if not f < nodes <= MEMBERS_MAX:
        raise ConfigError(
            f"byzantine = {f}: of {nodes} nodes one at least is honest, and at most {MEMBERS_MAX} take part. "
            f"Remedy: choose fewer"
        )
    if values["vectors"] not in ("tls", "plain"):
        raise ConfigError(f"vectors = {values['vectors']!r}: no such way. Remedy: choose tls or plain")
    training = check(Training, values["training"], "settings")
    committee = Committee(nodes, f)
    recipe = check(Choice, values["recipe"], "settings").recipe(committee)
    task = build(training.task, data_dir)
    evaluations = EVALUATIONS if link is None else training.steps // NodeConfig.model_fields["evaluate_every"].default
    network = Network(committee, recipe, task.dimension, training.steps, evaluations)
    plain = choose("dsgd", Committee(nodes, 0), wire=recipe.wire, local_steps=recipe.local_steps)
    undefended = replace(network, committee=Committee(nodes, 0), recipe=plain)
    mixings = {*network.mixings, *undefended.mixings}
    machine = calibrate(task, training, recipe, nodes, f, mixings, here=link is None, tls=values["vectors"] == "tls")
    seconds, without = (
        seconds_here(one, machine) if link is None else seconds_apart(one, machine, link)
        for one in (network, undefended)
    )
    did, (level, ahead) = tally(network), memory(network)
    return {
        "nodes": nodes,
        "f": f,
        "recipe": recipe.name,
        "task": training.task,
        "parameters": task.dimension,
        "exchanges": tolerated(network),
        "bytes": did.bytes,
        "words": did.words,
        "memory_bytes": level,
        "memory_ahead_bytes": ahead,
        "link": link,
        "seconds": seconds,
        "steps_per_second": 1 / seconds,
        "seconds_undefended": without,
        "slowdown": seconds / without,
        "cores": machine.cores,
        "share": asdict(share(network, machine)),
    }
