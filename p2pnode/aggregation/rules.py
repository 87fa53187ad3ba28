"""Every aggregation rule: its names, the committees its theorem covers, its source, and where its kernel is.

Torch is not imported here, nor until the first aggregation: settings are checked against this table, and torch takes
seconds to load. The theorems that a rule's bounds are from stand in `protocols.committee`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from p2pnode.errors import ConfigError, NonFinite, ShapeMismatch
from protocols import committee
from protocols.committee import Bound

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to mix n vectors into one.

    Args:
        name: its one name in settings, logs and results.
        aliases: what the literature and ByzFL call it.
        kernel: "module:function" in this package; a plug-in's as "package.module:function".
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
        kernel = getattr(import_module(module if "." in module else f"p2pnode.aggregation.{module}"), function)
        given = {"f": f, "own": own}
        mixture: Tensor = kernel(vectors, **{argument: given[argument] for argument in self.arguments})
        return mixture


BROADCAST_KINDS = ("plain", "signed-echo", "reliable")
"""What a rule states its bounds for."""


def _everywhere(bound: Bound) -> dict[str, Bound]:
    """The same bound over every broadcast."""
    return dict.fromkeys(BROADCAST_KINDS, bound)


_TABLE = (
    Rule(
        name="mean",
        aliases=("average",),
        kernel="coordinate:mean",
        arguments=(),
        inputs_min=lambda _f: 1,
        bounds=_everywhere(committee.NO_LIAR),
        source="decentralized SGD, the baseline",
        summary="average of all; tolerates no liar",
    ),
    Rule(
        name="median",
        aliases=("coordinate-median", "coordinate-wise-median", "cwmed"),
        kernel="coordinate:median",
        arguments=(),
        inputs_min=lambda f: 2 * f + 1,
        bounds=_everywhere(committee.MEDIAN),
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
            "plain": committee.TRIMMED_MEAN_OVER_PLAIN,
            "signed-echo": committee.TRIMMED_MEAN_OVER_SIGNED_ECHO,
            "reliable": committee.TRIMMED_MEAN_OVER_RELIABLE,
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
            "plain": committee.NEAREST_NEIGHBOUR_OVER_PLAIN,
            "signed-echo": committee.NEAREST_NEIGHBOUR,
            "reliable": committee.NEAREST_NEIGHBOUR,
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
        bounds=_everywhere(committee.MINIMUM_DIAMETER),
        source="averaging agreement, arXiv 2008.00742",
        summary="average of the q − f that lie closest together",
    ),
)

RULES: Mapping[str, Rule] = {rule.name: rule for rule in _TABLE}
BY_ANY_NAME = {name: rule for rule in _TABLE for name in (rule.name, *rule.aliases)}


def find(name: str) -> Rule:
    """The rule of that name or alias, or the plug-in of that name; case, and `_` or space for `-`, do not matter.

    Raises:
        ConfigError: if there is none, naming the known rules and the nearest name; or a plug-in is none.
    """
    key = name.strip().lower().replace("_", "-").replace(" ", "-")
    if key in BY_ANY_NAME:
        return BY_ANY_NAME[key]
    from p2pnode.aggregation.plugin import plugged, plugin_rule

    if (rule := plugin_rule(key)) is not None:
        return rule
    near = get_close_matches(key, [*BY_ANY_NAME, *plugged()], n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ConfigError(f"unknown aggregation rule {name!r}{hint}; known rules: {', '.join([*RULES, *plugged()])}")


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
