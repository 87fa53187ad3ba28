"""Every aggregation rule, and every pre-aggregation: its names, the committees it is for, its source, its kernel.

Torch is not imported here, nor until the first mixture: settings are checked against this table, and torch takes
seconds to load. The theorems that a rule's bounds are from stand in `protocols.committee`.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import TypeVar

from p2pnode.aggregation import resilience
from p2pnode.aggregation.rule import Inputs, Parameter, Part, PreAggregation, Rule, after
from p2pnode.errors import ConfigError
from protocols import committee
from protocols.committee import Bound

MAJORITY = Inputs(2, 1)
"""More honest vectors than lies."""

SCORED = Inputs(2, 3)
"""What Krum's score needs: one honest vector, itself not counted, among the n−f−2 nearest of any."""

SCORED_TWICE = Inputs(4, 3)
"""What Bulyan needs: of n−2f chosen ones, of which f are lies, the middle n−4f."""


BROADCAST_KINDS = ("plain", "signed-echo", "reliable")
"""What a rule states its bounds for."""


def _everywhere(bound: Bound) -> dict[str, Bound]:
    """The same bound over every broadcast."""
    return dict.fromkeys(BROADCAST_KINDS, bound)


_RULES = (
    Rule(
        name="mean",
        aliases=("average",),
        kernel="coordinate:mean",
        inputs_min=Inputs(0, 1),
        bounds=_everywhere(committee.NO_LIAR),
        source="decentralized SGD, the baseline",
        summary="average of all; tolerates no liar",
        resilience=resilience.MEAN_LAMBDA,
        kappa=resilience.MEAN_KAPPA,
    ),
    Rule(
        name="median",
        aliases=("coordinate-median", "coordinate-wise-median", "cwmed"),
        kernel="coordinate:median",
        inputs_min=MAJORITY,
        bounds=_everywhere(committee.MEDIAN),
        source="GuanYu, arXiv 1905.03853, steps 1 and 3",
        summary="per coordinate, the middle value",
        resilience=resilience.MEDIAN_LAMBDA,
        kappa=resilience.MEDIAN_KAPPA,
    ),
    Rule(
        name="trimmed-mean",
        aliases=("trmean", "cwtm", "coordinate-wise-trimmed-mean"),
        kernel="coordinate:trimmed_mean",
        arguments=("f",),
        inputs_min=MAJORITY,
        bounds={
            "plain": committee.TRIMMED_MEAN_OVER_PLAIN,
            "signed-echo": committee.TRIMMED_MEAN_OVER_SIGNED_ECHO,
            "reliable": committee.TRIMMED_MEAN_OVER_RELIABLE,
        },
        source="averaging agreement, arXiv 2008.00742",
        summary="per coordinate, average of all but the f lowest and the f highest",
        resilience=resilience.TRIMMED_MEAN_LAMBDA,
        kappa=resilience.TRIMMED_MEAN_KAPPA,
    ),
    Rule(
        name="nearest-neighbour",
        aliases=("nna", "monna", "nearest-neighbor", "nearest-neighbour-averaging", "nearest-neighbor-averaging"),
        kernel="nearest:nearest_neighbour",
        arguments=("f", "own"),
        inputs_min=Inputs(1, 1),
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
        inputs_min=MAJORITY,
        bounds=_everywhere(committee.MINIMUM_DIAMETER),
        source="averaging agreement, arXiv 2008.00742",
        summary="average of the q − f that lie closest together",
        resilience=resilience.MINIMUM_DIAMETER_LAMBDA,
    ),
    Rule(
        name="mean-around-median",
        aliases=("meamed",),
        kernel="coordinate:mean_around_median",
        arguments=("keep",),
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("MeaMed, arXiv 1802.10116")),
        source="MeaMed, arXiv 1802.10116",
        summary="per coordinate, average of the q − f nearest to the median",
        resilience=resilience.MEAN_AROUND_MEDIAN_LAMBDA,
    ),
    Rule(
        name="phocas",
        aliases=("mean-around-trimmed-mean",),
        kernel="coordinate:mean_around_trimmed_mean",
        arguments=("f",),
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("Phocas, arXiv 1805.09682")),
        source="Phocas, arXiv 1805.09682",
        summary="per coordinate, average of the q − f nearest to the trimmed mean",
    ),
    Rule(
        name="geometric-median",
        aliases=("gm", "geomed", "geometricmedian", "rfa"),
        kernel="centred:geometric_median",
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("RFA, arXiv 1912.13445")),
        source="RFA, arXiv 1912.13445",
        summary="the point of least sum of distances",
        resilience=resilience.GEOMETRIC_MEDIAN_LAMBDA,
        kappa=resilience.GEOMETRIC_MEDIAN_KAPPA,
    ),
    Rule(
        name="krum",
        aliases=(),
        kernel="krum:krum",
        arguments=("f",),
        inputs_min=SCORED,
        bounds=_everywhere(SCORED.bound("Krum, arXiv 1703.02757")),
        source="Krum, arXiv 1703.02757",
        summary="the one nearest to its q − f − 2 nearest others",
        resilience=resilience.KRUM_LAMBDA,
        kappa=resilience.KRUM_KAPPA,
    ),
    Rule(
        name="multi-krum",
        aliases=("multikrum",),
        kernel="krum:multi_krum",
        arguments=("f",),
        parameters=(Parameter("m", "how many are averaged, by default q − f − 2", whole=True),),
        inputs_min=SCORED,
        bounds=_everywhere(SCORED.bound("Krum, arXiv 1703.02757")),
        source="Krum, arXiv 1703.02757; arXiv 1905.04374",
        summary="average of the m nearest to their q − f − 2 nearest others",
        resilience=resilience.KRUM_LAMBDA,
        kappa=resilience.KRUM_KAPPA,
    ),
    Rule(
        name="bulyan",
        aliases=(),
        kernel="krum:bulyan",
        arguments=("f",),
        inputs_min=SCORED_TWICE,
        bounds=_everywhere(SCORED_TWICE.bound("Bulyan, arXiv 1802.07927")),
        source="Bulyan, arXiv 1802.07927",
        summary="per coordinate, average of the q − 4f nearest to the median of q − 2f taken by krum",
    ),
    Rule(
        name="multi-bulyan",
        aliases=("multibulyan",),
        kernel="krum:multi_bulyan",
        arguments=("f",),
        inputs_min=SCORED_TWICE,
        bounds=_everywhere(SCORED_TWICE.bound("Multi-Bulyan, arXiv 1905.04374")),
        source="Multi-Bulyan, arXiv 1905.04374",
        summary="bulyan over averages by multi-krum",
    ),
    Rule(
        name="gradient-elimination",
        aliases=("cge", "comparative-gradient-elimination", "norm-filtering"),
        kernel="elimination:gradient_elimination",
        arguments=("f",),
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("CGE, arXiv 2101.12316")),
        source="CGE, arXiv 2101.12316",
        summary="average of all but the f longest",
    ),
    Rule(
        name="comparative-elimination",
        aliases=("ce",),
        kernel="elimination:comparative_elimination",
        arguments=("f", "centre"),
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("CE, arXiv 2108.11769")),
        source="CE, arXiv 2108.11769",
        summary="average of all but the f farthest from where the round began",
    ),
    Rule(
        name="centred-clipping",
        aliases=("cc", "centered-clipping", "centeredclipping", "cclip"),
        kernel="centred:centred_clipping",
        arguments=("centre",),
        centre_optional=True,
        parameters=(
            Parameter("tau", "the length τ at which differences are clipped", default=100),
            Parameter("steps", "a number of steps", default=1, whole=True),
        ),
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("Learning from history, arXiv 2012.10333")),
        source="Learning from history, arXiv 2012.10333",
        summary="a centre, moved by the mean of the differences from it, clipped",
    ),
    Rule(
        name="self-centred-clipping",
        aliases=("scc", "self-centered-clipping", "clipped-gossip", "clippedgossip"),
        kernel="centred:self_centred_clipping",
        arguments=("f", "own"),
        parameters=(Parameter("tau", "the length τ at which differences are clipped, by default adaptive"),),
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("ClippedGossip, arXiv 2202.01545")),
        source="ClippedGossip, arXiv 2202.01545",
        summary="one's own, moved by the mean of the differences from it, clipped",
    ),
    Rule(
        name="covariance-filter",
        aliases=("caf", "covariance-bound-agnostic-filter"),
        kernel="spectral:covariance_filter",
        arguments=("f",),
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("CAF, ICML 2025")),
        source="CAF, Towards trustworthy federated learning with untrusted participants, ICML 2025",
        summary="average by weights that fall along the widest direction",
    ),
    Rule(
        name="smallest-maximum-eigenvalue",
        aliases=("smea", "smallest-maximum-eigenvalue-averaging"),
        kernel="spectral:smallest_maximum_eigenvalue",
        arguments=("f",),
        inputs_min=MAJORITY,
        bounds=_everywhere(MAJORITY.bound("SMEA, arXiv 2302.04787")),
        source="SMEA, arXiv 2302.04787",
        summary="average of the q − f of least covariance in any one direction",
        kappa=resilience.SMALLEST_EIGENVALUE_KAPPA,
        subsets=True,
    ),
)

_PRE_AGGREGATIONS = (
    PreAggregation(
        name="nnm",
        aliases=("nearest-neighbour-mixing", "nearest-neighbor-mixing"),
        kernel="pre:nearest_neighbour_mixing",
        arguments=("f",),
        source="NNM, arXiv 2302.01772",
        summary="each becomes the average of the q − f nearest to it",
    ),
    PreAggregation(
        name="bucketing",
        aliases=("buckets",),
        kernel="pre:bucketing",
        arguments=("seed",),
        parameters=(Parameter("s", "how many to a bucket", default=2, whole=True),),
        source="Bucketing, arXiv 2006.09365",
        summary="averages of s at a time, dealt out by a seed",
        keeps_rows=False,
    ),
    PreAggregation(
        name="clip",
        aliases=("clipping", "static-clipping"),
        kernel="pre:clip",
        parameters=(Parameter("c", "the length at which vectors are clipped", default=2),),
        source="gradient clipping",
        summary="each at most c long",
    ),
    PreAggregation(
        name="arc",
        aliases=("adaptive-robust-clipping",),
        kernel="pre:adaptive_robust_clip",
        arguments=("f",),
        source="ARC, arXiv 2405.14432",
        summary="the ⌊2f(q−f)/q⌋ longest as long as the next",
    ),
)

NAMES_MAX = 256
"""Names whose meaning is kept: a run asks for a few, thousands of times."""

RULES: Mapping[str, Rule] = {rule.name: rule for rule in _RULES}
PRE_AGGREGATIONS: Mapping[str, PreAggregation] = {pre.name: pre for pre in _PRE_AGGREGATIONS}

P = TypeVar("P", bound=Part)


@lru_cache(NAMES_MAX)
def find(name: str) -> Rule:
    """The rule of that name or alias, or a plug-in's; case, and `_` or space for `-`, do not matter.

    Before it pre-aggregations may stand, in order: "arc+nnm+krum". After a name numbers may: "clip=2+mean",
    "centred-clipping=10,3". The rule's own name says all of it in one way.

    Raises:
        ConfigError: unknown names, with the nearest and all known ones; no rule at the end, or one before it; numbers
            that do not belong; a plug-in that is no rule.
    """
    key = re.sub(r"\s*([+=,])\s*", r"\1", name.strip().lower()).replace("_", "-").replace(" ", "-")
    *firsts, last = key.split("+")
    before = tuple(_part("pre-aggregation", first, name, PRE_AGGREGATIONS, RULES, "put it last") for first in firsts)
    rules = _with_plug_in(last.partition("=")[0])
    rule = _part("aggregation rule", last, name, rules, PRE_AGGREGATIONS, f"put a rule after it, as {key}+median")
    if rule.wants_own and not all(pre.keeps_rows for pre in before):
        raise ConfigError(
            f"{name!r}: in buckets one's own vector, which {rule.name} needs, is lost. "
            f"Remedy: choose nnm, or a rule that treats all vectors alike"
        )
    return after(before, rule)


def _with_plug_in(word: str) -> Mapping[str, Rule]:
    """The rules; with the plug-in of that name, if it is neither a built-in part's nor unknown."""
    if word in names():
        return RULES
    from p2pnode.aggregation.plugin import plugin_rule

    rule = plugin_rule(word)
    return RULES if rule is None else {**RULES, rule.name: rule}


def names() -> frozenset[str]:
    """All names and aliases of rules and pre-aggregations that are built in."""
    return frozenset(_by_any_name(RULES)) | frozenset(_by_any_name(PRE_AGGREGATIONS))


def _part(what: str, text: str, whole: str, table: Mapping[str, P], others: Mapping[str, Part], place: str) -> P:
    """The part of a pipeline that a text "name" or "name=number,…" means."""
    word, equals, numbers = text.partition("=")
    known = _by_any_name(table)
    if word in known:
        return known[word].set_to(numbers.split(",") if equals else ())
    context = f" in {whole!r}" if "+" in whole or "=" in whole else ""
    if word in _by_any_name(others):
        raise ConfigError(f"{word!r}{context} is no {what}. Remedy: {place}")
    near = get_close_matches(word, known, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    install = ", or install the plug-in that brings it" if table is not PRE_AGGREGATIONS else ""
    raise ConfigError(f"unknown {what} {word!r}{context}{hint}. Remedy: choose one of {', '.join(table)}{install}")


def _by_any_name(table: Mapping[str, P]) -> dict[str, P]:
    return {name: part for part in table.values() for name in (part.name, *part.aliases)}
