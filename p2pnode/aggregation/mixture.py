"""Mixing: what is asked for is checked, rows that are not finite are left out, and the rule does the rest."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from p2pnode.aggregation.rule import Rule
from p2pnode.aggregation.rules import find
from p2pnode.errors import ConfigError, NonFinite, ShapeMismatch

if TYPE_CHECKING:
    from torch import Tensor

    from p2pnode.aggregation.row import Rows


class Mixture(NamedTuple):
    """What became of the vectors.

    Args:
        vector: (d,), their mixture: finite, of their dtype, on their device, sharing memory with none of them.
        kept: the rows that have a part in it, ascending; all finite ones for rules that look at each coordinate alone.
        dropped: the rows left out because they were not finite, ascending.
    """

    vector: Tensor
    kept: tuple[int, ...]
    dropped: tuple[int, ...]


def mix(
    name: str,
    vectors: Rows,
    *,
    f: int,
    own: int | Tensor | None = None,
    centre: Tensor | None = None,
    seed: int = 0,
) -> Mixture:
    """The mixture of `vectors` by a rule, and the rows that it is made of.

    A row that is not finite is a liar found out: the rule is applied to the others, of which one less may lie. One pass
    over the vectors finds such rows. Sums run at least in float32.

    Args:
        name: of a rule, as for `find`.
        vectors: (n, d) as one tensor, or n of (d,) wherever they lie; floating, never modified. What the rule tolerates
            holds for n − f of them honest.
        f: how many rows may be lies, ≥ 0.
        own: one's own row, by index or by value; rules that do not want it ignore it.
        centre: (d,), the model at which the round began; rules that do not want it ignore it.
        seed: of what is drawn by chance, the order in which bucketing deals out the rows.

    Raises:
        ConfigError: unknown rule; f < 0; fewer rows than the rule needs for f, or more work than it allows; own row
            wanted and missing, or none of the rows; centre wanted and missing.
        ShapeMismatch: not (n, d), not floating, or `own` or `centre` of another length, dtype or device.
        NonFinite: more than f rows with NaN or infinity, or one's own, or the centre; or rows to be averaged so far
            apart, beyond the largest finite number, that their mean overflows.
    """
    rule = find(name)
    vectors = _checked(rule, vectors, f)
    centre = _centre(rule, vectors, centre)
    if rule.watchful and (at_once := _if_all_is_finite(rule, vectors, f, own, centre, seed)):
        return at_once
    dropped = _not_finite(vectors)
    if len(dropped) > f:
        raise NonFinite(
            f"vectors with NaN or infinity in rows {', '.join(map(str, dropped))} of {len(vectors)}, where f={f}"
        )
    finite = [row for row in range(len(vectors)) if row not in dropped]
    own = _own(rule, vectors, finite, own)
    rows = [vectors[row] for row in finite] if dropped else vectors
    mixture, kept = _mixed(rule, rows, f - len(dropped), own, centre, seed)
    return Mixture(mixture, tuple(finite[row] for row in kept), tuple(dropped))


def _if_all_is_finite(
    rule: Rule, vectors: Rows, f: int, own: int | Tensor | None, centre: Tensor | None, seed: int
) -> Mixture | None:
    """The mixture, by code that meets every number on its way and stops at what is not finite: then None."""
    from p2pnode.aggregation.dispatch import Suspicion, serves_cpu  # needs torch

    if not serves_cpu(vectors):
        return None
    every = list(range(len(vectors)))
    try:
        mixture, kept = _mixed(rule, vectors, f, _own(rule, vectors, every, own), centre, seed)
    except (NonFinite, Suspicion):
        return None
    return Mixture(mixture, kept, ())


def aggregate(
    name: str,
    vectors: Rows,
    *,
    f: int,
    own: int | Tensor | None = None,
    centre: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """The vector of `mix`."""
    return mix(name, vectors, f=f, own=own, centre=centre, seed=seed).vector


def _mixed(
    rule: Rule, vectors: Rows, f: int, own: int | None, centre: Tensor | None, seed: int
) -> tuple[Tensor, tuple[int, ...]]:
    from p2pnode.aggregation.points import Points  # needs torch

    mixture, kept = rule.apply(Points(vectors), {"f": f, "own": own, "centre": centre, "seed": seed})
    if _not_finite([mixture]):
        raise NonFinite(f"{rule.name}: the rows to be averaged differ by more than {mixture.dtype} can hold")
    return mixture, kept


def _checked(rule: Rule, vectors: Rows, f: int) -> Tensor | list[Tensor]:
    """The vectors, apart from what they were computed by; as one tensor where no code takes them one by one."""
    from torch import Tensor

    from p2pnode.aggregation.dispatch import serves_cpu  # needs torch
    from p2pnode.aggregation.row import together

    if f < 0:
        raise ConfigError(f"the number of liars is f ≥ 0, got f={f}")
    if isinstance(vectors, Tensor):
        if vectors.dim() != 2 or not vectors.is_floating_point():
            raise ShapeMismatch(
                f"vectors must be floating, of shape (n, d); got {vectors.dtype}, {tuple(vectors.shape)}"
            )
        rule.check(len(vectors), f)
        return vectors.detach()
    rule.check(len(vectors), f)
    rows = [row.detach() for row in vectors]
    if rows[0].dim() != 1 or not rows[0].is_floating_point():
        raise ShapeMismatch(
            f"vectors must be floating, of shape (d,) each; got {rows[0].dtype}, {tuple(rows[0].shape)}"
        )
    for row in rows[1:]:
        _alike("every vector", rows, row)
    return rows if serves_cpu(rows) else together(rows)


def _not_finite(vectors: Tensor | list[Tensor]) -> list[int]:
    # NaN and infinity survive every sum, and a sum costs a twentieth of an element-wise test. A sum may also overflow
    # over finite numbers, so a row under suspicion is looked at element by element.
    sums = [row.sum().item() for row in vectors] if isinstance(vectors, list) else vectors.sum(dim=1).tolist()
    return [
        row for row, total in enumerate(sums) if not math.isfinite(total) and not bool(vectors[row].isfinite().all())
    ]


def _centre(rule: Rule, vectors: Rows, centre: Tensor | None) -> Tensor | None:
    if "centre" not in rule.arguments:
        return None
    if centre is None:
        if rule.wants_centre:
            raise ConfigError(
                f"{rule.name} needs the model at which the round began. Remedy: give it as centre, or choose a rule "
                f"without one, as trimmed-mean"
            )
        return None
    centre = _alike("centre", vectors, centre)
    if _not_finite([centre]):
        raise NonFinite("the centre has NaN or infinity")
    return centre


def _own(rule: Rule, vectors: Rows, finite: list[int], own: int | Tensor | None) -> int | None:
    """Where one's own row is among the finite ones."""
    if not rule.wants_own:
        return None
    if own is None:
        raise ConfigError(f"{rule.name} needs one's own row")
    if not isinstance(own, int):
        row = _alike("own row", vectors, own)
        own = next((index for index in finite if bool((vectors[index] == row).all())), None)
    if own is None or not 0 <= own < len(vectors):
        raise ConfigError(f"own row{'' if own is None else f' {own}'} is none of the {len(vectors)} rows")
    if own not in finite:
        raise NonFinite(f"own row {own} has NaN or infinity")
    return finite.index(own)


def _alike(what: str, vectors: Rows, vector: Tensor) -> Tensor:
    """The vector, if it is like a row."""
    row = vectors[0]
    if (vector.shape, vector.dtype, vector.device) != (row.shape, row.dtype, row.device):
        raise ShapeMismatch(
            f"{what} must be {row.dtype}, {tuple(row.shape)} on {row.device}, as the rows; "
            f"got {vector.dtype}, {tuple(vector.shape)} on {vector.device}"
        )
    return vector.detach()
