"""What proves misbehaviour to anyone: `verify-evidence`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from p2pnode.cli.console import answer
from p2pnode.cli.options import AsJson
from p2pnode.codec import decode_evidence
from p2pnode.errors import ConfigError, P2PNodeError, WireError
from p2pnode.genesis import Genesis
from p2pnode.identity import KeyRing

commands = typer.Typer()


@commands.command("verify-evidence")
def verify_evidence(
    file: Annotated[Path, typer.Argument(help="An evidence file.", show_default=False)],
    genesis: Annotated[Path, typer.Option(help="The genesis of its network.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check a proof of equivocation with nothing but the genesis. Exit code 0 if it holds, 1 if it does not."""
    charter = Genesis.load(genesis)
    keys = KeyRing([bytes.fromhex(member.public_key) for member in charter.members])
    try:
        evidence = decode_evidence(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}; give an evidence file") from error
    except WireError as error:
        raise P2PNodeError(f"{file} proves nothing: {error}") from error
    if not evidence.holds(charter.network, keys):
        raise P2PNodeError(f"{file} proves nothing: it is not two headers, signed for one slot of this network")
    accused, slot = charter.members[evidence.accused].name, evidence.first.header.slot
    if as_json:
        print(json.dumps({"accused": accused, "fault": "equivocated", "step": slot.step, "sub_round": slot.sub_round}))
    else:
        answer.print(f"[bold]{accused}[/] equivocated: it signed two vectors for step {slot.step}", soft_wrap=True)
        for signed in (evidence.first, evidence.second):
            answer.print(f"  {signed.header.digest.hex()}", soft_wrap=True)
