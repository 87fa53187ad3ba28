"""Which member of a genesis a home belongs to."""

from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis, Member
from p2pnode.home import Home
from p2pnode.identity import Ask, Identity, unasked
from protocols.header import PeerId


def occupant(home: Home, genesis: Genesis, name: str, ask: Ask = unasked) -> tuple[PeerId, Identity]:
    """The member of this name, and its key from the home, which is the one that the genesis names.

    Raises:
        ConfigError: if the home is not this member's.
    """
    index = index_of(home, genesis, name)
    return index, _identity(home, genesis.members[index], ask)


def index_of(home: Home, genesis: Genesis, name: str) -> PeerId:
    """Which member of the genesis has this name.

    Raises:
        ConfigError: if none has.
    """
    for index, member in enumerate(genesis.members):
        if member.name == name:
            return PeerId(index)
    raise ConfigError(f"{home.config}: name = {name!r}: no such member in {home.genesis}; correct the name")


def _identity(home: Home, member: Member, ask: Ask) -> Identity:
    identity = Identity.load(home.key, ask)
    if identity.public_key.hex() != member.public_key:
        raise ConfigError(f"{home.key}: not the key of {member.name} in {home.genesis}; copy the right one")
    if not home.certificate.exists() or home.certificate.read_text() != member.certificate:
        raise ConfigError(f"{home.certificate}: not the certificate of {member.name}; copy it from {home.genesis}")
    return identity
