"""Numbers: n vectors in, one out, whatever f of them say.

`rules` holds every rule's name, bounds and source, and `mixture` what is done by them; neither needs torch before the
first mixture. The other files hold the kernels, one a family; those of whole vectors take `points`.
"""

from p2pnode.aggregation.mixture import Mixture, aggregate, mix
from p2pnode.aggregation.rule import PreAggregation, Rule
from p2pnode.aggregation.rules import PRE_AGGREGATIONS, RULES, find

__all__ = ["PRE_AGGREGATIONS", "RULES", "Mixture", "PreAggregation", "Rule", "aggregate", "find", "mix"]
