"""Every aggregation rule: its names, the committees its theorem covers, its source, and where its kernel is.

Torch is not imported here, nor until the first aggregation: settings are checked against this table, and torch takes
seconds to load. A rule's bounds stand with the rule, as data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from p2pnode.errors import ConfigError, NonFinite, ShapeMismatch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Bound:
    """The committees that a theorem covers: n ≥ per_liar·f + spare for f ≥ 1, and any n ≥ 1 for f = 0.

    Args:
        per_liar: members needed for each liar; None for a rule that tolerates no liar.
        spare: members needed besides.
        source: where the theorem is.
    """

    per_liar: int | None
    spare: int
    source: str

    def least(self, f: int) -> int | None:
        """The least n that tolerates f liars; None if no n does."""
        if f == 0:
            return 1
        return None if self.per_liar is None else self.per_liar * f + self.spare

    def tolerated(self, n: int) -> int:
        """The largest f that n members tolerate; 0 if there is none."""
        return 0 if self.per_liar is None else max(0, (n - self.spare) // self.per_liar)

    def __str__(self) -> str:
        if self.per_liar is None:
            return "f = 0"
        return f"n ≥ {self.per_liar}f" + (f"+{self.spare}" if self.spare else "")


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to mix n vectors into one.

    Args:
        name: its one name in settings, logs and results.
        aliases: what the literature and ByzFL call it.
        kernel: "module:function" in this package.
        arguments: what the kernel takes besides the vectors, of "f" and "own".
        inputs_min: least number of vectors that it can mix, given f.
        bounds: broadcast kind → committees for which averaging agreement by this rule is proven.
        source: where the rule is defined.
        summary: one line for people.
    """

    name: str
    aliases: tuple[str, ...]
    kernel: str
    arguments: tuple[str, ...]
    inputs_min: Callable[[int], int]
    bounds: Mapping[str, Bound]
    source: str
    summary: str

    @property
    def wants_own(self) -> bool:
        """Whether the mixture depends on which vector is one's own."""
        return "own" in self.arguments

    def apply(self, vectors: Tensor, f: int, own: Tensor | None) -> Tensor:
        """The mixture of vectors that `aggregate` has checked."""
        module, function = self.kernel.split(":")
        kernel = getattr(import_module(f"p2pnode.aggregation.{module}"), function)
        given = {"f": f, "own": own}
        mixture: Tensor = kernel(vectors, **{argument: given[argument] for argument in self.arguments})
        return mixture


_NO_LIAR = Bound(None, 0, "one liar moves a mean anywhere")
_GUANYU = Bound(3, 3, "GuanYu, arXiv 1905.03853")
_MDA = Bound(6, 1, "averaging agreement, arXiv 2008.00742")
_JUNGLE = "averaging agreement, arXiv 2008.00742; worst contraction {} checked by enumeration"

_TABLE = (
    Rule(
        name="mean",
        aliases=("average",),
        kernel="coordinate:mean",
        arguments=(),
        inputs_min=lambda _f: 1,
        bounds={"plain": _NO_LIAR, "signed-echo": _NO_LIAR},
        source="decentralized SGD, the baseline",
        summary="average of all; tolerates no liar",
    ),
    Rule(
        name="median",
        aliases=("coordinate-median", "coordinate-wise-median", "cwmed"),
        kernel="coordinate:median",
        arguments=(),
        inputs_min=lambda f: 2 * f + 1,
        bounds={"plain": _GUANYU, "signed-echo": _GUANYU},
        source="GuanYu, arXiv 1905.03853, steps 1 and 3",
        summary="per coordinate, the middle value",
    ),
    Rule(
        name="trimmed-mean",
        aliases=("trmean", "cwtm", "coordinate-wise-trimmed-mean"),
        kernel="coordinate:trimmed_mean",
        arguments=("f",),
        inputs_min=lambda f: 2 * f + 1,
        bounds={
            "plain": Bound(5, 1, _JUNGLE.format("2f/(n−3f)")),
            "signed-echo": Bound(4, 1, _JUNGLE.format("f/(n−3f)")),
        },
        source="averaging agreement, arXiv 2008.00742",
        summary="per coordinate, average of all but the f lowest and the f highest",
    ),
    Rule(
        name="nearest-neighbour",
        aliases=("nna", "monna", "nearest-neighbor", "nearest-neighbour-averaging", "nearest-neighbor-averaging"),
        kernel="distance:nearest_neighbour",
        arguments=("f", "own"),
        inputs_min=lambda f: f + 1,
        bounds={
            "plain": Bound(11, 0, "MoNNA, arXiv 2209.10931, one sub-round"),
            "signed-echo": Bound(5, 1, "MoNNA, arXiv 2209.10931, O(log n) sub-rounds"),
        },
        source="MoNNA, arXiv 2209.10931",
        summary="average of all but the f farthest from one's own",
    ),
    Rule(
        name="minimum-diameter",
        aliases=("mda", "minimum-diameter-averaging", "brute"),
        kernel="subset:minimum_diameter",
        arguments=("f",),
        inputs_min=lambda f: 2 * f + 1,
        bounds={"plain": _MDA, "signed-echo": _MDA},
        source="averaging agreement, arXiv 2008.00742",
        summary="average of the q − f that lie closest together",
    ),
)

RULES: Mapping[str, Rule] = {rule.name: rule for rule in _TABLE}
_BY_ANY_NAME = {name: rule for rule in _TABLE for name in (rule.name, *rule.aliases)}


def find(name: str) -> Rule:
    """The rule of that name or alias; case, and `_` or space for `-`, do not matter.

    Raises:
        ConfigError: if there is none; names the known rules and the nearest name.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key in _BY_ANY_NAME:
        return _BY_ANY_NAME[key]
    near = get_close_matches(key, _BY_ANY_NAME, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"unknown aggregation rule {name!r}{hint}; known rules: {', '.join(RULES)}")


def aggregate(name: str, vectors: Tensor, *, f: int, own: int | Tensor | None = None) -> Tensor:
    """The mixture of `vectors` by a rule: finite, of their dtype, on their device, sharing memory with none of them.

    Sums run at least in float32. One pass over the vectors checks that they are finite.

    Args:
        name: name or alias of a rule.
        vectors: (n, d), floating; never modified. What the rule tolerates holds for n − f of them honest.
        f: how many rows may be lies, ≥ 0; the mean tolerates none and ignores it.
        own: one's own row, by index or by value; rules that do not want it ignore it.

    Returns:
        (d,).

    Raises:
        ConfigError: unknown rule; f < 0; fewer rows than the rule needs for f; own row wanted and missing, or none of
            the rows.
        ShapeMismatch: not (n, d), not floating, or `own` of another length, dtype or device.
        NonFinite: rows with NaN or infinity, named by index; or rows to be averaged so far apart, beyond the largest
            finite number, that their mean overflows.
    """
    rule = find(name)
    vectors = vectors.detach()
    _check_f(f)
    _check_vectors(rule, vectors, f)
    mixture = rule.apply(vectors, f, _own_row(rule, vectors, own))
    if _nonfinite_rows(mixture.unsqueeze(0)):
        raise NonFinite(f"{rule.name}: the rows to be averaged differ by more than {mixture.dtype} can hold")
    return mixture


def _check_f(f: int) -> None:
    if f < 0:
        raise ConfigError(f"the number of liars is f ≥ 0, got f={f}")


def _check_vectors(rule: Rule, vectors: Tensor, f: int) -> None:
    if vectors.dim() != 2 or not vectors.is_floating_point():
        raise ShapeMismatch(f"vectors must be floating, of shape (n, d); got {vectors.dtype}, {tuple(vectors.shape)}")
    if len(vectors) < rule.inputs_min(f):
        raise ConfigError(f"{rule.name} with f={f} needs at least {rule.inputs_min(f)} vectors, got {len(vectors)}")
    if bad := _nonfinite_rows(vectors):
        raise NonFinite(f"vectors with NaN or infinity in rows {', '.join(map(str, bad))} of {len(vectors)}")


def _nonfinite_rows(vectors: Tensor) -> list[int]:
    # NaN and infinity survive every sum, and a sum costs a twentieth of an element-wise test. A sum may also overflow
    # over finite numbers, so a row under suspicion is looked at element by element.
    sums = vectors.sum(dim=1).tolist()
    return [
        row for row, total in enumerate(sums) if not math.isfinite(total) and not bool(vectors[row].isfinite().all())
    ]


def _own_row(rule: Rule, vectors: Tensor, own: int | Tensor | None) -> Tensor | None:
    if not rule.wants_own:
        return None
    if own is None:
        raise ConfigError(f"{rule.name} needs one's own row")
    if isinstance(own, int):
        if not 0 <= own < len(vectors):
            raise ConfigError(f"own row {own} is none of the {len(vectors)} rows")
        return vectors[own]
    row = vectors[0]
    if (own.shape, own.dtype, own.device) != (row.shape, row.dtype, row.device):
        raise ShapeMismatch(
            f"own row must be {row.dtype}, {tuple(row.shape)} on {row.device}, as the others; "
            f"got {own.dtype}, {tuple(own.shape)} on {own.device}"
        )
    return own.detach()
