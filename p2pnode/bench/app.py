"""The command line that every measurement is a command of."""

import sys

import typer
from rich.console import Console
from rich.markup import escape

from p2pnode.errors import ConfigError, P2PNodeError


class BenchFailed(P2PNodeError):
    """What is measured did not run to its end; says why."""


app = typer.Typer(add_completion=False, no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback()
def main() -> None:
    """Measure p2pnode on this machine.

    scripts/bench rules                        every rule at three sizes

    scripts/bench rules --quick                the same in seconds, smaller

    scripts/bench rules --size 10,2,1000000    10 vectors, 2 of them lies, of 1,000,000 coordinates

    scripts/bench link                         vectors across a link, beside a bare socket pair

    scripts/bench round --data-dir data/mnist  steps per second against plain averaging, and where the time goes

    scripts/bench silence                      the same networks with f of them silent, beside none

    scripts/bench flood                        honest nodes while a member floods one of them, beside none

    scripts/bench scale                        bytes, messages, signatures and memory of a node, as n and d grow

    scripts/bench observe                      steps with the looking at vectors that the page shows, beside none

    scripts/bench crypto                       what signatures cost a node in a step

    scripts/bench link --json > link.jsonl     one JSON object a line
    """


def run() -> None:
    """Run the command line; a mistake in the settings exits with 2, another failure that we know of with 1."""
    try:
        app()
    except P2PNodeError as error:
        refused = isinstance(error, ConfigError)
        Console(stderr=True).print(f"[bold red]{'refused' if refused else 'failed'}[/]", escape(str(error)))
        sys.exit(2 if refused else 1)
