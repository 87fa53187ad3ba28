"""The command line; thin. A module for each group of commands, in the order in which `--help` tells of them."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from p2pnode.cli import evidence, experiment, founding, model, node, planning, simulation, testnet
from p2pnode.cli.console import EXIT_FAILED, EXIT_SETTINGS, say
from p2pnode.errors import ConfigError, P2PNodeError

__all__ = ["app", "run"]

app = typer.Typer(
    help="A peer-to-peer learning node: decentralized SGD that learns although some of its peers lie.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (testnet, planning, simulation, experiment, founding, node, model, evidence):
    app.add_typer(group.commands)


def _tell_version(asked: bool) -> None:
    if asked:
        print(f"p2pnode {version('p2pnode')}")
        raise typer.Exit


@app.callback()
def before(
    _: Annotated[bool, typer.Option("--version", callback=_tell_version, help="Show the version and exit.")] = False,
) -> None:
    """What stands before a command."""


def run(began: float) -> None:
    """Run the command line.

    Args:
        began: when the command was started, seconds since the epoch.
    """
    try:
        app(obj=began)
    except ConfigError as error:
        say("[bold red]refused[/]", error)
        sys.exit(EXIT_SETTINGS)
    except P2PNodeError as error:
        say("[bold red]failed[/]", error)
        sys.exit(EXIT_FAILED)
