"""A peer-to-peer learning node: decentralized SGD that learns although some of its peers lie.

From one's own code: `fit` and `fit_async` train a model with the peers of a home, `task` puts a model, its data and its
loss under one name for the command line. They are imported when they are first used, and torch with them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from p2pnode.driver import Step as Step
    from p2pnode.fitting import Fitted as Fitted
    from p2pnode.fitting import fit as fit
    from p2pnode.fitting import fit_async as fit_async
    from p2pnode.learning.own import task as task

__version__ = "0.1.0"

_OFFERED = {
    "Fitted": "p2pnode.fitting",
    "Step": "p2pnode.driver",
    "fit": "p2pnode.fitting",
    "fit_async": "p2pnode.fitting",
    "task": "p2pnode.learning.own",
}

__all__ = ["Fitted", "Step", "__version__", "fit", "fit_async", "task"]


def __getattr__(name: str) -> Any:  # noqa: ANN401  whatever it is
    if name in _OFFERED:
        return getattr(import_module(_OFFERED[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
