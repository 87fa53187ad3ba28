"""The attacks on vectors by name: from what was asked for to what is said."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from p2pnode.byzantine import ATTACKS, PAPER, PLUGINS, SEARCH, Attack, search, summoned, vectors
from p2pnode.byzantine.vectors import Situation, VectorAttack
from p2pnode.errors import ConfigError
from p2pnode.learning.source import names_code
from p2pnode.plugins import discover, distribution_of, load


@dataclass(frozen=True, slots=True)
class Scheme:
    """One liar's way to lie about its vector.

    Args:
        lie: what it says.
        wants_own: whether it needs its own honest vector, and so has to train and to mix before it can lie.
        to_each: whether each peer is told another lie, made for it.
    """

    lie: VectorAttack
    wants_own: bool = False
    to_each: bool = False


def scheme_of(attack: Attack) -> Scheme | None:
    """A new scheme, which remembers nothing yet; None for an attack that is not about vectors.

    Raises:
        ConfigError: if it is a plug-in's, or one's own, that cannot be used.
    """
    if names_code(attack.name):
        return Scheme(_held(summoned(attack.name), attack.name, "it", "mend it"))
    if attack.name not in ATTACKS:
        return Scheme(_plugged(attack.name))
    make = _SCHEMES.get(attack.name)
    return make(attack) if make is not None else None


def _a_little(attack: Attack) -> Scheme:
    z = attack.parameter
    if z == SEARCH:
        return Scheme(search.searched_a_little)
    if z == PAPER:
        return Scheme(lambda s: vectors.a_little_is_enough(s.honest, vectors.paper_z(s.n, s.f)))
    return Scheme(lambda s: vectors.a_little_is_enough(s.honest, _number(attack)))


def _inner_product(attack: Attack) -> Scheme:
    if attack.parameter == SEARCH:
        return Scheme(search.searched_inner_product)
    return Scheme(lambda s: vectors.inner_product_manipulation(s.honest, _number(attack)))


def _strongest(attack: Attack) -> Scheme:
    schemes = [scheme_of(one) for one in attack.among]
    return Scheme(search.strongest([scheme.lie for scheme in schemes if scheme is not None]))


def _dissensus(attack: Attack) -> Scheme:
    epsilon = _number(attack)
    return Scheme(
        lambda s: vectors.dissensus(s.honest, s.target, max(1, s.n - s.liars), s.liars, epsilon), to_each=True
    )


def _constant(value: float) -> Scheme:
    return Scheme(lambda s: vectors.constant(s.honest, value))


def _too_long(situation: Situation) -> Tensor:
    assert situation.own is not None
    return vectors.too_long(situation.own)


def _number(attack: Attack) -> float:
    assert isinstance(attack.parameter, float | int)
    return float(attack.parameter)


_SCHEMES: dict[str, Callable[[Attack], Scheme]] = {
    "alie": _a_little,
    "ipm": _inner_product,
    "sign-flip": lambda _: Scheme(lambda s: vectors.sign_flip(s.honest)),
    "mimic": lambda attack: Scheme(vectors.Mimic(int(_number(attack)))),
    "anti-elimination": lambda _: Scheme(lambda s: vectors.anti_elimination(s.honest, s.f, s.centre)),
    "dissensus": _dissensus,
    "strongest": _strongest,
    "random": lambda attack: Scheme(lambda s: vectors.gaussian(s.honest, s.generator, _number(attack))),
    "zero": lambda _: _constant(0.0),
    "huge": lambda attack: _constant(_number(attack)),
    "nan": lambda _: _constant(torch.nan),
    "inf": lambda _: _constant(torch.inf),
    "wrong-length": lambda _: Scheme(_too_long, wants_own=True),
    "stale": lambda attack: Scheme(vectors.Stale(int(_number(attack))), wants_own=True),
}

VECTOR_ATTACKS = frozenset(_SCHEMES)
"""Names of those attacks of `p2pnode.byzantine.ATTACKS` that are about vectors."""


def _plugged(name: str) -> VectorAttack:
    """A plug-in's attack, which is held to the shape of a lie.

    Raises:
        ConfigError: if it does not load or cannot be called; and from the attack, if what it says is no lie.
    """
    attack = load(PLUGINS, name)
    source = distribution_of(discover(PLUGINS)[name])
    if not callable(attack):
        raise ConfigError(
            f"attack = {name!r}: the plug-in of {source} is no callable from a Situation to a tensor. "
            f"Remedy: mend or uninstall {source}"
        )

    return _held(attack, name, f"the plug-in of {source}", f"mend or uninstall {source}")


def _held(attack: VectorAttack, name: str, who: str, remedy: str) -> VectorAttack:
    """Somebody else's attack, held to the shape of a lie; it raises ConfigError where what it says is none."""

    def lie(situation: Situation) -> Tensor:
        said = attack(situation)
        truth = situation.honest[0]
        if not isinstance(said, Tensor) or (said.shape, said.dtype) != (truth.shape, truth.dtype):
            told = f"{said.dtype}, {tuple(said.shape)}" if isinstance(said, Tensor) else type(said).__name__
            raise ConfigError(
                f"attack = {name!r}: {who} said {told}, not {truth.dtype}, {tuple(truth.shape)}. Remedy: {remedy}"
            )
        return said

    return lie
