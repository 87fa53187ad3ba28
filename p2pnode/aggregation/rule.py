"""What a rule is, and what may stand before one: their names, numbers, bounds and kernels. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from importlib import import_module
from math import ceil, comb, inf
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from p2pnode.aggregation import resilience
from p2pnode.aggregation.resilience import Constant
from p2pnode.errors import ConfigError
from protocols.committee import Bound, gathering

if TYPE_CHECKING:
    from p2pnode.aggregation.points import Mixed, Points

Values = Mapping[str, float | None]
"""What a rule's parameters are set to."""

SUBSETS_MAX = 30_000
"""Most subsets whose covariances are looked at; at q = 21, f = 5, where there are 20349, it takes half a second."""


class Inputs(NamedTuple):
    """How many vectors a rule needs: per_liar·f + spare for f ≥ 1, and one for f = 0."""

    per_liar: int
    spare: int

    def __call__(self, f: int) -> int:
        return self.per_liar * f + self.spare if f else 1

    def bound(self, source: str) -> Bound:
        return gathering(self.per_liar, self.spare, source)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number that may follow the name of a rule: "name=number", several split at commas.

    Args:
        name: of the kernel's argument.
        meaning: for people. Every finite number above 0 has one.
        default: what it is unless given; None leaves it to the kernel.
        whole: whether it is an integer.
    """

    name: str
    meaning: str
    default: float | None = None
    whole: bool = False

    def parse(self, part: str, text: str) -> float:
        """The number that a text says.

        Raises:
            ConfigError: if it says none, or one that is not finite or ≤ 0.
        """
        try:
            value = int(text) if self.whole else float(text)
        except ValueError:
            value = 0
        if not 0 < value < inf:
            kind = "a whole number" if self.whole else "a number"
            raise ConfigError(f"{part}={text}: not {self.meaning}. Remedy: choose {kind} above 0")
        return int(value) if self.whole or value == int(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What rules and pre-aggregations have in common.

    Args:
        name: its one name in settings, logs and results.
        aliases: what the literature and ByzFL call it.
        kernel: "module:function" in this package; of points, but in `coordinate` of vectors. A plug-in's is
            "package.module:function", of vectors.
        arguments: what the kernel takes besides, of "f", "own", "centre", "seed", and "keep", all but f.
        parameters: what may be set by number.
        values: what is set otherwise than by default.
        source: where it is defined.
        summary: one line for people.
    """

    name: str
    aliases: tuple[str, ...]
    kernel: str
    arguments: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    values: Values = field(default_factory=dict)
    source: str
    summary: str

    def set_to(self, texts: Sequence[str]) -> Self:
        """The same with its first parameters set to numbers, and they in its name if they are not the defaults.

        Raises:
            ConfigError: more numbers than parameters, or what is none in range.
        """
        if len(texts) > len(self.parameters):
            takes = "; ".join(f"{each.name}, {each.meaning}" for each in self.parameters) or "no number"
            raise ConfigError(f"{self.name}={','.join(texts)}: it takes {takes}. Remedy: remove what is too much")
        numbers = [each.parse(self.name, text) for each, text in zip(self.parameters, texts, strict=False)]
        while numbers and numbers[-1] == self.parameters[len(numbers) - 1].default:
            numbers.pop()
        if not numbers:
            return self
        values = {each.name: number for each, number in zip(self.parameters, numbers, strict=False)}
        return replace(self, name=f"{self.name}={','.join(map(repr, numbers))}", values=values)

    def run(self, points: Points, given: Mapping[str, Any]) -> Any:  # noqa: ANN401  points or a mixture
        module, function = self.kernel.split(":")
        plugged = "." in module
        kernel = getattr(import_module(module if plugged else f"p2pnode.aggregation.{module}"), function)
        given = {**given, "keep": len(points) - given["f"]}
        arguments = {name: given[name] for name in self.arguments} | self._settings()
        if plugged:
            from p2pnode.aggregation.row import together  # needs torch

            return points.each(kernel(together(points.vectors), **arguments))
        if self.kernel == "coordinate:mean":
            return points.mean_of(range(len(points)))
        if module == "coordinate":
            return points.by_coordinate(partial(kernel, **arguments))
        return kernel(points, **arguments)

    def _settings(self) -> dict[str, float | None]:
        return {each.name: self.values.get(each.name, each.default) for each in self.parameters}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreAggregation(Part):
    """What makes other vectors of those gathered before a rule mixes them.

    Args:
        keeps_rows: whether of each vector there comes one, so that one's own is still known.
    """

    keeps_rows: bool = True

    def outputs(self, q: int) -> int:
        """How many vectors come of q."""
        return q if self.keeps_rows else ceil(q / self._bucket)

    def inputs(self, needed: Inputs) -> Inputs:
        """How many vectors it needs for the rule to get as many as it needs."""
        if self.keeps_rows:
            return needed
        return Inputs(self._bucket * needed.per_liar, self._bucket * (needed.spare - 1) + 1)

    @property
    def _bucket(self) -> int:
        return int(self._settings()["s"] or 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule(Part):
    """One way to mix n vectors into one.

    Args:
        inputs_min: least number of vectors that it can mix, given f.
        bounds: broadcast kind → committees for which averaging agreement by this rule is proven; or, as the source of
            the bound says, only that each of them gathers as many vectors as the rule needs.
        resilience: λ of (f, λ)-resilient averaging by n, f and d; None where none is known.
        kappa: κ of (f, κ)-robustness by n and f; None where none is known.
        before: the pre-aggregations, in order.
        subsets: whether it looks at all subsets of all but f vectors.
        centre_optional: whether it has another centre where none is given.
    """

    inputs_min: Inputs
    bounds: Mapping[str, Bound]
    resilience: Constant | None = None
    kappa: Constant | None = None
    before: tuple[PreAggregation, ...] = ()
    subsets: bool = False
    centre_optional: bool = False

    @property
    def watchful(self) -> bool:
        """Whether its compiled kernels meet what is not finite in whatever row, so that none need be looked at before.

        Those of distances, norms and ranks do. Buckets may be too few numbers to be worth compiling for, and of a
        plug-in's kernel nothing is known.
        """
        return "." not in self.kernel.split(":")[0] and all(pre.keeps_rows for pre in self.before)

    @property
    def wants_own(self) -> bool:
        """Whether the mixture depends on which vector is one's own."""
        return "own" in self.arguments

    @property
    def wants_centre(self) -> bool:
        """Whether it needs the model at which the round began."""
        return "centre" in self.arguments and not self.centre_optional

    def check(self, q: int, f: int) -> None:
        """Whether q vectors, f of them lies, can be mixed; what can be known before they are seen.

        Raises:
            ConfigError: fewer than the rule needs; a parameter out of range; more work than a named limit allows.
        """
        if q < self.inputs_min(f):
            raise ConfigError(f"{self.name} with f={f} needs at least {self.inputs_min(f)} vectors, got {q}")
        q = reduce(lambda left, pre: pre.outputs(left), self.before, q)
        if self.subsets and comb(q, f) > SUBSETS_MAX:
            raise ConfigError(
                f"{self.name}: {q} vectors without {f} of them are {comb(q, f)} subsets, more than {SUBSETS_MAX}. "
                f"Remedy: choose a smaller f, or a rule that searches nothing, as caf"
            )
        m = self.values.get("m")
        if m is not None and m > max(1, q - f - 2):
            raise ConfigError(
                f"{self.name}: m={m:g} of {q} vectors with f={f}. Remedy: choose m from 1 to {max(1, q - f - 2)}"
            )

    def apply(self, points: Points, given: Mapping[str, Any]) -> Mixed:
        """The mixture of points that were checked."""
        for pre in self.before:
            points = pre.run(points, given)
        mixed: Mixed = self.run(points, given)
        return mixed


def after(before: tuple[PreAggregation, ...], rule: Rule) -> Rule:
    """The rule with pre-aggregations before it.

    Its bound is that of the rule, raised where more must be gathered: of agreement by the two together nothing is
    proven. Of the constants κ alone is known, after nearest-neighbour mixing alone.
    """
    if not before:
        return rule
    inputs = reduce(lambda needed, pre: pre.inputs(needed), reversed(before), rule.inputs_min)
    names = "+".join(pre.name for pre in before)
    bounds = {
        broadcast: replace(
            bound.stricter(inputs.bound(rule.source)), source=f"{bound.source}; taken over to it after {names}"
        )
        for broadcast, bound in rule.bounds.items()
    }
    mixes = [pre.kernel for pre in before] == ["pre:nearest_neighbour_mixing"]
    return replace(
        rule,
        name=f"{names}+{rule.name}",
        aliases=(),
        inputs_min=inputs,
        bounds=bounds,
        before=before,
        resilience=None,
        kappa=resilience.after_mixing(rule.kappa) if mixes and rule.kappa else None,
        summary=f"{rule.summary}, after {names}",
    )
