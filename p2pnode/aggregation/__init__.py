"""Numbers: n vectors in, one out, whatever f of them say.

`rules` holds every rule's name, bounds and source, and needs no torch; `coordinate`, `distance` and `subset` hold the
kernels.
"""

from p2pnode.aggregation.rules import RULES, Rule, aggregate, find

__all__ = ["RULES", "Rule", "aggregate", "find"]
