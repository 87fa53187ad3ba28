"""The charter that all members share: who they are, how many may lie, what they learn and how.

Its hash names the network. It is bound into every signature, so that nothing signed for one network means anything in
another. Addresses are left out of the hash: a member may move, and stays who it is.
"""

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import blake3
from pydantic import Field, ValidationInfo, field_validator

from p2pnode.errors import ConfigError
from p2pnode.identity import certificate_der, certified_key
from p2pnode.recipe import BROADCASTS, RECIPES, WIRES, Placement, Recipe, Staleness, Wait, Wire, choose
from p2pnode.settings import Address, Settings, check
from protocols.committee import MEMBERS_MAX, Committee

_DOMAIN = b"p2pnode/genesis/v1\0"

_ADDED = {
    "recipe": {"gather", "redundancy", "local_steps", "placement", "wire", "staleness"},
    "training": {"clip", "model"},
}
"""Choices that the first networks did not have: where they are not made, a network is named as it was then."""


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Member(Settings):
    """One member: its name, key, pinned certificate and where it listens.

    Args:
        name: what its peers and its log call it.
        public_key: its Ed25519 key, in hexadecimal.
        certificate: its self-signed certificate of that key, PEM. No other opens a link.
        address: where its peers dial it. It is no part of the network's name: a member may move.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] = Field(
        description="use lower-case letters, digits and hyphens, at most 63"
    )
    public_key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="copy the 64 hexadecimal digits that `p2pnode keygen` printed"
    )
    certificate: str = Field(description="copy the PEM text that `p2pnode keygen` wrote to cert.pem")
    address: Address = Field(description="write it as host:port")

    @field_validator("certificate")
    @classmethod
    def _certificate_is_of_the_key(cls, certificate: str, info: ValidationInfo) -> str:
        key = certified_key(certificate).hex()
        if key != info.data.get("public_key", key):
            raise ValueError("the certificate carries another key than public_key")
        return certificate


class Choice(Settings):
    """Which recipe, and what is chosen otherwise than it does; what is left out is the recipe's choice.

    Args:
        name: the recipe.
        broadcast: by what vectors are broadcast.
        rule: by what they are mixed: name, alias or pipeline of an aggregation rule.
        sub_rounds: of each averaging agreement; by default as many as the recipe's promise takes.
        gather: how many values are waited for: a quorum of n−f, or all.
        redundancy: how many members are not waited for, at least f; by default f.
        local_steps: gradients that are followed before a model is exchanged.
        placement: whose momentum it is: of one's own gradients (worker), or of the directions agreed on (update).
        wire: what vectors are rounded to when they are announced.
        staleness: 1 takes a step's gradient while the last step's models are exchanged; 0 does not.
    """

    name: str = Field("trimmed", description=f"choose one of {', '.join(RECIPES)}")
    broadcast: str | None = Field(None, description=f"choose one of {', '.join(BROADCASTS)}")
    rule: str | None = Field(None, description="choose one that `p2pnode list rules` names")
    sub_rounds: Annotated[int, Field(ge=1, le=64)] | None = Field(None, description="choose from 1 to 64")
    gather: Wait | None = Field(None, description="choose quorum or all")
    redundancy: Annotated[int, Field(ge=0, lt=MEMBERS_MAX)] | None = Field(
        None, description="choose how many members are not waited for, from f"
    )
    local_steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="choose from 1 to 1000")
    placement: Placement | None = Field(None, description="choose worker or update")
    wire: Wire | None = Field(None, description=f"choose one of {', '.join(WIRES)}")
    staleness: Staleness | None = Field(None, description="choose 0 or 1")

    def recipe(self, committee: Committee, *, guarded: bool = True) -> Recipe:
        """The recipe, with every choice made.

        Raises:
            ConfigError: for an unknown name; or if no theorem covers it at this n and f.
        """
        return choose(
            self.name,
            committee,
            self.broadcast,
            self.rule,
            self.sub_rounds,
            gather=self.gather,
            redundancy=self.redundancy,
            local_steps=self.local_steps,
            placement=self.placement,
            wire=self.wire,
            staleness=self.staleness,
            guarded=guarded,
        )


class Model(Settings):
    """What each member's model must be before the first step; see `p2pnode.learning.weights.Fingerprint`.

    Args:
        parameters: how many numbers are exchanged.
        layout: digest of the names, shapes and dtypes of all weights, and of which are exchanged.
        start: digest of what they begin as.
    """

    parameters: Annotated[int, Field(ge=1)] = Field(description="choose how many numbers are exchanged")
    layout: Digest = Field(description="copy the 64 hexadecimal digits from another member's genesis")
    start: Digest = Field(description="copy the 64 hexadecimal digits from another member's genesis")


class Training(Settings):
    """The learning task and its schedule. The step size is lr / (1 + ⌊step / lr_decay_every⌋).

    Args:
        task: what is learned: a built-in task, a plug-in's, or the name of one's own.
        alpha: Dirichlet concentration of labels a node: the smaller, the fewer labels a node has. Left out, the data
            are split i.i.d.
        steps: learning steps of the whole run.
        local_batch: samples in a mini-batch of one node.
        momentum: Polyak's β, in m ← βm + (1−β)g.
        lr: the first step size.
        lr_decay_every: steps after which the step size is divided by 2, 3, …; 0 keeps it.
        clip: the largest norm of a gradient; a longer one is shortened to it. Left out, none is.
        model: what a model of one's own must be; left out for a built-in task.
    """

    task: Annotated[str, Field(pattern=r"^[^:]+$")] = Field(
        "digits", description="choose one that `p2pnode list tasks` names, or the name of one's own"
    )
    alpha: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="choose a positive Dirichlet concentration, or leave it out for i.i.d. data"
    )
    steps: Annotated[int, Field(ge=1, le=10**9)] = Field(description="choose at least 1")
    local_batch: Annotated[int, Field(ge=1, le=2**20)] = Field(description="choose at least 1 sample")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(description="choose 0 ≤ momentum < 1, for example 0.9")
    lr: Annotated[float, Field(gt=0)] = Field(description="choose a positive step size, for example 0.1")
    lr_decay_every: Annotated[int, Field(ge=0)] = Field(0, description="choose a number of steps, or 0 for none")
    clip: Annotated[float, Field(gt=0)] | None = Field(
        None, description="choose the largest norm of a gradient, or leave it out"
    )
    model: Model | None = Field(None, description="make the genesis with `--task FILE.py:NAME`, or leave it out")


class Genesis(Settings):
    """The charter. Two nodes that read the same charter agree on everything but their data.

    Args:
        version: of this format.
        seed: of initial model, data split and batches.
        f: how many members may lie.
        recipe: what a step exchanges, and how.
        vectors: how vectors travel: under TLS, or in the clear. Messages are always under TLS.
        training: the learning task and its schedule.
        members: all of them; n is how many there are.
    """

    version: Literal[1] = Field(1, description="make the genesis with this version of p2pnode")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="choose an integer from 0")
    f: Annotated[int, Field(ge=0, lt=MEMBERS_MAX)] = Field(description="choose how many members may lie, from 0")
    recipe: Choice = Choice()
    vectors: Literal["tls", "plain"] = Field(
        "tls", description="choose tls, or plain where nobody but the members can listen to the network"
    )
    training: Training
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=MEMBERS_MAX, strict=False)] = Field(
        description=f"list from 1 to {MEMBERS_MAX} members, each with its own name, public_key and address"
    )

    @field_validator("members")
    @classmethod
    def _members_differ(cls, members: tuple[Member, ...]) -> tuple[Member, ...]:
        for what in ("name", "public_key", "address"):
            value, count = Counter(getattr(member, what) for member in members).most_common(1)[0]
            if count > 1:
                raise ValueError(f"{count} members share the {what} {value}")
        return members

    @property
    def committee(self) -> Committee:
        """n and f.

        Raises:
            ConfigError: if every member may lie.
        """
        n = len(self.members)
        if self.f >= n:
            raise ConfigError(f"f = {self.f}: of n={n} members fewer than n may lie. Remedy: choose f < {n}")
        return Committee(n, self.f)

    @property
    def plan(self) -> Recipe:
        """The recipe, with every choice made.

        Raises:
            ConfigError: if no theorem covers it at this n and f.
        """
        return self.recipe.recipe(self.committee)

    @property
    def network(self) -> bytes:
        """32 bytes that name the network."""
        charter = self.model_dump(mode="json", exclude={"members": {"__all__": {"address"}}})
        for table, keys in _ADDED.items():
            charter[table] = {k: v for k, v in charter[table].items() if k not in keys or v is not None}
        if self.vectors == "tls":  # as the first networks, which had no choice
            del charter["vectors"]
        canonical = json.dumps(charter, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return blake3.blake3(_DOMAIN + canonical.encode()).digest()

    @property
    def certificates_der(self) -> tuple[bytes, ...]:
        return tuple(certificate_der(member.certificate) for member in self.members)

    def save(self, path: Path) -> None:
        path.write_text(self.model_dump_json(indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Genesis":
        """Read a charter, and check it down to its theorem.

        Raises:
            ConfigError: if the file is missing or wrong anywhere.
        """
        return cls.checked(read_json(path), path)

    @classmethod
    def checked(cls, values: Mapping[str, Any], source: str | Path) -> "Genesis":
        """The charter of these values, checked down to its theorem.

        Raises:
            ConfigError: naming the source, if a value is wrong, or no theorem covers them.
        """
        genesis = check(cls, values, source)
        genesis.plan  # noqa: B018  refuses what no theorem covers
        return genesis


def read_json(path: Path) -> dict[str, object]:
    """A JSON object from a file.

    Raises:
        ConfigError: if the file is missing, unreadable or not a JSON object.
    """
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; make one with `p2pnode init`") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error}); copy it again from another member") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: not a JSON object; copy it again from another member")
    return value
