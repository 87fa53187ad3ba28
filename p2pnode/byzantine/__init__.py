"""How liars lie: attacks on vectors and on the protocol, for experiments. The honest path never imports this."""

from collections.abc import Iterable
from difflib import get_close_matches

from p2pnode.errors import ConfigError

ATTACKS: dict[str, str] = {
    "alie": "a little is enough: the honest mean less 1.5 standard deviations, hidden in the honest spread",
    "sign-flip": "the honest mean, negated",
    "random": "Gaussian noise of standard deviation 200 in each coordinate",
    "nan": "not a number in each coordinate",
    "silent": "says nothing",
    "equivocate": "tells different peers different vectors, and vouches for all that its fellows tell",
    "withhold": "sends the bytes of its vector to some peers only, drawn anew",
    "selective": "says each of its words to some peers only, drawn anew",
    "forge": "makes up certificates, headers and votes, in its own name and in others'",
}
"""Name of each attack → what the liar does. Needs no torch, so the command line can check a name at once."""


def check_attacks(names: Iterable[str]) -> None:
    """Refuse a name that is no attack.

    Raises:
        ConfigError: naming it, the nearest name, and all of them.
    """
    for name in names:
        if name not in ATTACKS:
            near = get_close_matches(name, ATTACKS, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"attack = {name!r}: no such attack. Remedy: {hint}choose from {', '.join(ATTACKS)}")
