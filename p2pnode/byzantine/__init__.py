"""How liars lie: attacks on vectors, on data and on the protocol, for experiments. The honest path never imports this.

An attack is named in one string, `name` or `name=parameter`, or is the owner's own code, `FILE.py:NAME` or
`MODULE:NAME`. Nothing here needs torch, so that the command line can check a name at once.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from p2pnode.errors import ConfigError
from p2pnode.learning.source import names_code, summon
from p2pnode.plugins import discover, distribution_of

PLUGINS = "p2pnode.attacks"
"""Entry-point group of attacks from other distributions: each a callable (`vectors.Situation`) → (d,) tensor."""

ATTACKS: dict[str, str] = {
    "alie": "a little is enough: the honest mean less z standard deviations, hidden in the honest spread",
    "ipm": "inner product manipulation: the honest mean times −ε",
    "sign-flip": "the honest mean, negated",
    "mimic": "copies one honest peer, whose data then count for more than the others'",
    "anti-elimination": "against the sum of the honest that elimination keeps, and just short enough to be kept",
    "dissensus": "tells each peer what drives it away from the others",
    "strongest": "of several vector attacks the one that moves the rule in use the farthest",
    "random": "Gaussian noise of a large standard deviation in each coordinate",
    "zero": "zero in each coordinate",
    "huge": "a huge number in each coordinate, and finite",
    "nan": "not a number in each coordinate",
    "inf": "infinity in each coordinate",
    "wrong-length": "its own vector with a coordinate too many, and a header that says so or one that does not",
    "stale": "its own honest vector of some steps ago",
    "label-flip": "trains honestly on labels turned round, the first class for the last",
    "silent": "says nothing",
    "equivocate": "tells different peers different vectors, and vouches for all that its fellows tell",
    "withhold": "sends the bytes of its vector to some peers only, drawn anew",
    "slow-drip": "sends the bytes of its vector to one peer after another, once the honest have gone on without them",
    "selective": "says each of its words to some peers only, drawn anew",
    "forge": "makes up certificates, headers and votes, in its own name and in others'",
    "replay": "says again what it heard and said before, of any slot, in anybody's name",
}
"""Name of each attack → what the liar does."""

ON_THE_PROTOCOL = frozenset({"silent", "equivocate", "withhold", "slow-drip", "selective", "forge", "replay"})
"""Attacks that are not about what a liar's vector or labels are: they are done together with those that are."""

ALIASES: dict[str, str] = {
    "a-little-is-enough": "alie",
    "little": "alie",
    "empire": "ipm",
    "fall-of-empires": "ipm",
    "inner-product": "ipm",
    "inner-product-manipulation": "ipm",
    "signflip": "sign-flip",
    "sign-flipping": "sign-flip",
    "label-flipping": "label-flip",
    "gaussian": "random",
    "anti-cge": "anti-elimination",
    "anti-ce": "anti-elimination",
    "infinity": "inf",
    "selective-silence": "selective",
}
"""What the literature and ByzFL call them → the one name here."""

SEARCH = "search"
"""The parameter by which a line search finds the strongest factor against the rule in use."""

PAPER = "paper"
"""The parameter by which the factor is what the attack's paper makes of n and f."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What may follow an attack's name.

    Args:
        meaning: in words.
        default: where nothing follows.
        words: what may stand in place of a number.
        whole: whether the number is a whole one, from 1.
    """

    meaning: str
    default: float
    words: tuple[str, ...] = ()
    whole: bool = False

    def read(self, text: str) -> float | str | None:
        """The number or word; None if it is neither."""
        if text in self.words:
            return text
        try:
            number = float(text)
        except ValueError:
            return None
        if not math.isfinite(number) or number < 0 or (self.whole and (number < 1 or number != int(number))):
            return None
        return number

    def __str__(self) -> str:
        number = "a whole number from 1" if self.whole else "a number from 0"
        return " or ".join([f"{number} ({self.meaning}; {self.default:g} if left out)", *self.words])


PARAMETERS: dict[str, Parameter] = {
    "alie": Parameter("z, standard deviations", 1.5, (PAPER, SEARCH)),
    "ipm": Parameter("ε", 0.1, (SEARCH,)),
    "mimic": Parameter("steps before it chooses whom", 100, whole=True),
    "dissensus": Parameter("ε; at 1 a peer's mean stays where it is", 1.5),
    "random": Parameter("standard deviation", 200),
    "huge": Parameter("the number", 1e30),
    "stale": Parameter("steps", 5, whole=True),
}
"""Of the attacks that take one. Defaults: `alie` 1.5, `ipm` 0.1 and `random` 200 as in the published code of
ByzantineMomentum, ByzFL and MoNNA; `mimic` 100 as in that of MoNNA; `dissensus` 1.5 as in that of ClippedGossip."""

STRONGEST_OF = ("alie=search", "ipm=search", "sign-flip", "anti-elimination")
"""What `strongest` chooses from, if it is not told."""

_COMPARABLE = ("alie", "ipm", "sign-flip", "mimic", "anti-elimination", "random", "zero", "huge")
"""What `strongest` may be told to choose from: lies for all, made of others' vectors, that a rule takes in."""


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack, as it was asked for.

    Args:
        name: of `ATTACKS`, or a plug-in's; or where one's own code is.
        parameter: what followed it, or the default; None where it takes none.
        among: what `strongest` chooses from.
    """

    name: str
    parameter: float | str | None = None
    among: tuple["Attack", ...] = ()


def parse(text: str) -> Attack:
    """What `name` or `name=parameter` asks for; case, and `_` or space for `-`, do not matter.

    `strongest=one+other` chooses from those. `FILE.py:NAME` is taken as it stands, and nothing of it is run.

    Raises:
        ConfigError: if there is no such attack, or it takes no such parameter; names the nearest, and all of them.
    """
    if names_code(text):
        return Attack(text.strip())
    given, equals, value = text.partition("=")
    name = _named(given)
    if name == "strongest":
        among = tuple(parse(one) for one in (value.split("+") if equals else STRONGEST_OF))
        if unfit := [one.name for one in among if one.name not in _COMPARABLE]:
            raise ConfigError(
                f"attack = {text!r}: strongest does not choose from {', '.join(unfit)}. "
                f"Remedy: join some of {', '.join(_COMPARABLE)} by +"
            )
        return Attack(name, among=among)
    parameter = PARAMETERS.get(name)
    if parameter is None:
        if equals:
            raise ConfigError(f"attack = {text!r}: {name} takes no parameter. Remedy: write {name} alone")
        return Attack(name)
    number = parameter.read(_key(value)) if equals else parameter.default
    if number is None:
        raise ConfigError(f"attack = {text!r}: {value!r} is no parameter of {name}. Remedy: choose {parameter}")
    return Attack(name, number)


def check_attacks(names: Iterable[str]) -> None:
    """Refuse what `parse` refuses, and one's own code that does not run, which is run to know it.

    Raises:
        ConfigError: as `parse` and `summoned`.
    """
    for name in names:
        attack = parse(name)
        if names_code(attack.name):
            summoned(attack.name)


def summoned(name: str) -> Callable[..., Any]:
    """The attack that one's own code is, its file run.

    Raises:
        ConfigError: if there is none, its file does not run, or it cannot be called.
    """
    found: Callable[..., Any] = summon(name, "attack")
    if not callable(found):
        raise ConfigError(
            f"attack = {name!r}: it is no function but {found!r:.80}. Remedy: name a function of a Situation that "
            "returns a (d,) tensor"
        )
    return found


def known_attacks() -> dict[str, str]:
    """Name → what the liar does, of all attacks: those here, and the plug-ins', which are not loaded."""
    plugged = {name: f"a plug-in of {distribution_of(point)}" for name, point in discover(PLUGINS).items()}
    return plugged | ATTACKS


def _named(given: str) -> str:
    key = _key(given)
    name = ALIASES.get(key, key)
    if name in ATTACKS:
        return name
    if given.strip() in discover(PLUGINS):
        return given.strip()
    known = known_attacks()
    near = get_close_matches(key, [*known, *ALIASES], n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    plugged = "".join(f"; {name}, {known[name]}" for name in known if name not in ATTACKS)
    raise ConfigError(
        f"attack = {given.strip()!r}: no such attack. Remedy: {hint}choose from {', '.join(ATTACKS)}{plugged}; or "
        "name your own code as FILE.py:NAME"
    )


def _key(text: str) -> str:
    return text.strip().lower().replace("_", "-").replace(" ", "-")
