"""Found a network: keys, certificates, one genesis, and a home folder for each member."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from p2pnode.config import NodeConfig
from p2pnode.durable import sync_folder
from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis
from p2pnode.home import Home
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
    genesis = check(Genesis, {**values, "members": members}, "settings")
    genesis.plan  # noqa: B018  refuses what no theorem covers
    return genesis, identities


def found(folder: Path, places: Sequence[Place], values: Mapping[str, Any]) -> Genesis:
    """Write `folder/genesis.json`, and `folder/NAME` as the home of each member.

    Raises:
        ConfigError: if a value is wrong, a home exists, or the folder cannot be written.
    """
    genesis, identities = charter(places, values)
    configs = [_config(place) for place in places]
    taken = [path for path in (folder / "genesis.json", *(folder / place.name for place in places)) if path.exists()]
    if taken:
        raise ConfigError(f"{taken[0]}: exists; choose another folder, a home is never overwritten")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        genesis.save(folder / "genesis.json")
        for member, identity, config in zip(genesis.members, identities, configs, strict=True):
            _make_home(Home(folder / member.name), genesis, identity, member.certificate, config)
    except OSError as error:
        raise ConfigError(f"{error.filename}: {error.strerror}; choose another folder") from error
    return genesis


def _make_home(home: Home, genesis: Genesis, identity: Identity, certificate: str, config: str) -> None:
    home.path.mkdir(mode=0o700)
    identity.save(home.key)
    DurableSigner.begin(identity, home.journal)
    home.certificate.write_text(certificate)
    genesis.save(home.genesis)
    home.config.write_text(config, encoding="utf-8")
    sync_folder(home.path.parent)


def _config(place: Place) -> str:
    given = {"name": place.name, "listen": place.listen or place.address, **place.settings}
    values = {key: value for key, value in given.items() if value is not None}
    check(NodeConfig, values, f"settings of {place.name}")
    return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())


def _toml(value: object) -> str:
    """A JSON string, number or boolean is a TOML one too, but for one character that only TOML escapes."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
