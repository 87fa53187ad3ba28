"""One node, from its home: `run`, `doctor`, `status`, `top`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from p2pnode.asking import ask as ask_node
from p2pnode.byzantine import check_attacks
from p2pnode.cli.console import EXIT_FAILED, answer
from p2pnode.cli.options import AsJson, HomeFolder, PassphraseFile, Source, Written, names, one_of
from p2pnode.home import Home
from p2pnode.observe import table
from p2pnode.observe.levels import LEVELS, Console
from p2pnode.passphrase import asking
from p2pnode.top import EVERY_S, homes_of
from p2pnode.top import show as show_nodes

LOG_FORMATS = ("text", "json")
PROBES = {"live": "/healthz", "ready": "/readyz"}

commands = typer.Typer()


@commands.command("run")
def run_home(
    home: HomeFolder,
    attack: Annotated[str, typer.Option(help="Lie, for tests: what, as in `testnet`.", show_default=False)] = "",
    task: Source = None,
    liars: Annotated[str, typer.Option(help="Members that lie with it, a list of names.", show_default=False)] = "",
    passphrase_file: PassphraseFile = None,
    log_level: Annotated[str, typer.Option(help=f"The least level to show: {', '.join(LEVELS)}.")] = "info",
    log_format: Annotated[
        str, typer.Option(help="text on standard error, or json on standard output, a line each.")
    ] = "text",
    tensorboard: Written = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --log-format json.")] = False,
) -> None:
    """Run one node from its home, until the last step is taken and no peer needs it. Ctrl-C stops it in good order.

    Its log is log.jsonl in the home; the options only choose what is shown of it.
    """
    level = one_of("log-level", log_level, LEVELS)
    written = one_of("log-format", log_format, LOG_FORMATS)
    console: Console = "json" if as_json or written == "json" else "people"
    attacks = names(attack) if attack else ()
    check_attacks(attacks)
    from p2pnode.process import run_node

    ask = asking(passphrase_file)
    fellows = tuple(filter(None, names(liars)))
    code = run_node(
        Home(home), attacks, fellows, console=console, ask=ask, source=task, shown=level, tensorboard=tensorboard
    )
    raise typer.Exit(code)


@commands.command()
def doctor(
    home: HomeFolder,
    patience: Annotated[float, typer.Option(min=0.1, help="Seconds to wait for a peer.")] = 3.0,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Examine a home before its node runs: files, keys, genesis, ports, disk, device, peers. Exit code 1 if it will not
    run, or not with its peers; what is wrong is told with its remedy.

    Example:

      p2pnode doctor a
    """
    from p2pnode.doctor import examine

    findings = examine(Home(home), patience, asking(passphrase_file))
    if as_json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        answer.print(table.findings(findings))
    if any(finding.verdict == "bad" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


@commands.command()
def status(
    home: HomeFolder,
    probe: Annotated[
        str | None, typer.Option(help="Only whether the node is live, or ready: exit code 0 if so, else 1.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the running node of a home what it does, and whom it waits for.

    Examples:

      p2pnode status a

      p2pnode status a --probe ready
    """
    if probe is not None:
        told = ask_node(Home(home), PROBES[one_of("probe", probe, PROBES)])
        print(json.dumps(told))
        raise typer.Exit(0 if told.get("ready", True) else EXIT_FAILED)
    told = ask_node(Home(home), "/status")
    if as_json:
        print(json.dumps(told, indent=2))
    else:
        answer.print(table.status(told))


@commands.command()
def top(
    folders: Annotated[
        list[Path], typer.Argument(help="Homes, or folders of them, as a testnet's.", show_default=False)
    ],
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = EVERY_S,
    once: Annotated[
        bool, typer.Option("--once", help="Show one picture and end; exit code 1 if no node answers.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the nodes of this machine, a row each: step, loss, whom each waits for, who is late. Ctrl-C ends it.

    With --json a line for each look.

    Examples:

      p2pnode top runs/testnet

      p2pnode top a b --once --json
    """
    show_nodes(homes_of(folders), answer, every, once=once, as_json=as_json)
