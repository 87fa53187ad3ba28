"""Who the node of a home is among the members of its genesis."""

from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis, Member
from p2pnode.home import Home
from p2pnode.identity import Identity
from protocols.header import PeerId


def index_of(genesis: Genesis, name: str, home: Home) -> PeerId:
    """The member of this name.

    Raises:
        ConfigError: if there is none.
    """
    for index, member in enumerate(genesis.members):
        if member.name == name:
            return PeerId(index)
    raise ConfigError(f"{home.config}: name = {name!r}: no such member in {home.genesis}; correct the name")


def identity_of(member: Member, home: Home) -> Identity:
    """The home's key and certificate, which are the member's.

    Raises:
        ConfigError: if one is missing, unreadable or another's.
    """
    identity = Identity.load(home.key)
    if identity.public_key.hex() != member.public_key:
        raise ConfigError(f"{home.key}: not the key of {member.name} in {home.genesis}; copy the right one")
    if not home.certificate.exists() or home.certificate.read_text() != member.certificate:
        raise ConfigError(f"{home.certificate}: not the certificate of {member.name}; copy it from {home.genesis}")
    return identity
