"""Found a network: keys, certificates, one genesis, and a home folder for each member; all at one place, or each member
its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.config import NodeConfig
from p2pnode.durable import sync
from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis, Member, read_json
from p2pnode.home import Home, NetworkFolder
from p2pnode.identity import Identity
from p2pnode.settings import check
from p2pnode.storage.signer import DurableSigner


@dataclass(frozen=True, slots=True)
class Place:
    """Where one member will run.

    Args:
        name: its name in the genesis.
        address: host:port under which the others reach it.
        settings: more of its `node.toml`.
        listen: host:port that it listens on there, if not the address.
    """

    name: str
    address: str
    settings: Mapping[str, Any]
    listen: str | None = None


def equip(
    home: Home, name: str, address: str, settings: Mapping[str, Any], listen: str, passphrase: bytes | None = None
) -> Member:
    """Make key, certificate, journal and settings of a member that is to join a network; its card, for the genesis.

    Args:
        home: an empty folder, or none yet.
        name: its name in the genesis.
        address: host:port under which the others reach it.
        settings: more of its `node.toml`.
        listen: host:port that it listens on.
        passphrase: seals the key; None leaves it in clear.

    Raises:
        ConfigError: if a value is wrong, the home has a key already, or it cannot be written.
    """
    identity = Identity.generate()
    values = {
        "name": name,
        "public_key": identity.public_key.hex(),
        "certificate": identity.certificate(name),
        "address": address,
    }
    card = check(Member, values, "settings")
    config = _config(Place(name, address, settings, listen))
    try:
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _furnish(home, identity, card.certificate, config, passphrase)
        home.card.write_text(card.model_dump_json(indent=2) + "\n")
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; choose another folder") from error
    return card


def unite(cards: Sequence[Path], values: Mapping[str, Any]) -> Genesis:
    """A checked genesis of the members whose cards these are, in the order of their names.

    Args:
        cards: files that `equip` wrote.
        values: `seed`, `f`, `recipe`, `vectors`, `training` of the genesis.

    Raises:
        ConfigError: if a card or a value is wrong, two members share something, or no theorem covers them.
    """
    members = sorted((check(Member, read_json(card), card) for card in cards), key=lambda member: member.name)
    return Genesis.checked({**values, "members": [member.model_dump() for member in members]}, "settings")


def charter(places: Sequence[Place], values: Mapping[str, Any]) -> tuple[Genesis, list[Identity]]:
    """A checked genesis with fresh keys for all members.

    Args:
        places: the members, in order.
        values: `seed`, `f`, `recipe`, `training` of the genesis.

    Raises:
        ConfigError: if a value is wrong, or no theorem covers them.
    """
    identities = [Identity.generate() for _ in places]
    members = [
        {
            "name": place.name,
            "public_key": identity.public_key.hex(),
            "certificate": identity.certificate(place.name),
            "address": place.address,
        }
        for place, identity in zip(places, identities, strict=True)
    ]
    return Genesis.checked({**values, "members": members}, "settings"), identities


def found(folder: Path, places: Sequence[Place], values: Mapping[str, Any], start: bytes | None = None) -> Genesis:
    """Write `folder/genesis.json`, and `folder/NAME` as the home of each member.

    Args:
        folder: where.
        places: the members, in order.
        values: `seed`, `f`, `recipe`, `training` of the genesis.
        start: the weights that it names, to be put into each home.

    Raises:
        ConfigError: if a value is wrong, a home exists, or the folder cannot be written.
    """
    genesis, identities = charter(places, values)
    configs = [_config(place) for place in places]
    charter_file = NetworkFolder(folder).genesis
    taken = [path for path in (charter_file, *(folder / place.name for place in places)) if path.exists()]
    if taken:
        raise ConfigError(f"{taken[0]}: exists; choose another folder, a home is never overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        genesis.save(charter_file)
        for member, identity, config in zip(genesis.members, identities, configs, strict=True):
            home = Home(folder / member.name)
            home.path.mkdir(mode=0o700)
            _furnish(home, identity, member.certificate, config)
            genesis.save(home.genesis)
            if start is not None:
                home.start.write_bytes(start)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; choose another folder") from error
    return genesis


def _furnish(home: Home, identity: Identity, certificate: str, config: str, passphrase: bytes | None = None) -> None:
    """What a node has of its own."""
    identity.save(home.key, passphrase)
    DurableSigner.begin(identity, home.journal)
    home.certificate.write_text(certificate)
    home.config.write_text(config, encoding="utf-8")
    sync(home.path.absolute().parent)


def _config(place: Place) -> str:
    given = {"name": place.name, "listen": place.listen or place.address, **place.settings}
    values = {key: value for key, value in given.items() if value is not None}
    check(NodeConfig, values, f"settings of {place.name}")
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: object) -> str:
    """A JSON string, number or boolean is a TOML one too, but for one character that only TOML escapes."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
