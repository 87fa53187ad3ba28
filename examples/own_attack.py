"""An attack of one's own: a function of what a liar knows, to what it says in the place of its vector.

    p2pnode testnet --attack examples/own_attack.py:exaggerate --nodes 5
    p2pnode testnet --attack examples/own_attack.py:exaggerate,equivocate --nodes 5

and the same in simulation, where it costs a network that averages its accuracy:

    p2pnode simulate --train --recipe trimmed --nodes 5 --attack examples/own_attack.py:exaggerate \
      --schedule random --seeds 1 --steps 40
    p2pnode simulate --train --recipe trimmed --nodes 5 --attack examples/own_attack.py:exaggerate \
      --schedule random --seeds 1 --steps 40 --rule mean --f 0 --beyond-the-bound
"""

from torch import Tensor

from p2pnode.byzantine.vectors import Situation

TIMES = 30.0
"""Farther from the mean than anybody honest: a rule that cuts off extremes cuts it off, and a mean does not."""


def exaggerate(situation: Situation) -> Tensor:
    """What the honest member farthest from the honest mean says, exaggerated, and turned round."""
    mean = situation.honest.mean(dim=0)
    differences = situation.honest - mean
    farthest = differences[int(differences.norm(dim=1).argmax())]
    return mean - TIMES * farthest
