"""What the rule is called, needs and promises. It needs no torch, so that a name is checked at once."""

from p2pnode.aggregation.rule import Inputs, Rule

NEEDS = Inputs(per_liar=2, spare=1)
"""Of 2f+1 vectors one is left without the f lowest and the f highest of each coordinate."""

RULE = Rule(
    name="middle",
    aliases=(),
    kernel="middle.kernel:midrange_of_the_trimmed",
    arguments=("f",),
    inputs_min=NEEDS,
    # The guard takes its author's word. This claims no more than that of n−f gathered there are enough: n ≥ 3f+1.
    bounds=dict.fromkeys(("plain", "signed-echo", "reliable"), NEEDS.bound("an example")),
    source="an example",
    summary="the middle between the lowest and the highest that are left without the f lowest and highest",
)
