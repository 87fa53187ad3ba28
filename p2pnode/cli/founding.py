"""The keys and the charter of a network across machines: `keygen`, `seal`, `unseal`, `genesis`, `init`."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from p2pnode.cli.charter import Exchange, Learning, data_folder, genesis_values, proposal_of, spread
from p2pnode.cli.console import answer
from p2pnode.cli.options import AsJson, DataDir, HomeFolder, PassphraseFile, Recipe, Source
from p2pnode.errors import ConfigError
from p2pnode.genesis import Genesis
from p2pnode.home import START, Home, NetworkFolder
from p2pnode.identity import Identity
from p2pnode.init import Place, equip, found, unite
from p2pnode.learning.source import anywhere
from p2pnode.passphrase import asking

commands = typer.Typer()
charters = typer.Typer(help="Make and read the charter that all members share.", no_args_is_help=True)
commands.add_typer(charters, name="genesis")


@commands.command()
def keygen(
    home: HomeFolder,
    name: Annotated[str, typer.Option(help="The member's name.")] = "node",
    address: Annotated[str, typer.Option(help="HOST:PORT under which the others reach it.")] = "127.0.0.1:7000",
    listen: Annotated[
        str | None, typer.Option(help="HOST:PORT to listen on; default: the address's port, on every interface.")
    ] = None,
    task: Source = None,
    data_dir: DataDir = None,
    seal: Annotated[bool, typer.Option("--seal", help="Seal the key by a passphrase; it never lies in clear.")] = False,
    passphrase_file: PassphraseFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a home for one node, and its join card: name, public key, certificate and address, for `genesis new`.

    Example:

      p2pnode keygen a --name a --address 10.0.0.1:7000
    """
    settings = {"data_dir": None if data_dir is None else str(data_dir.resolve())}
    place = _place(f"{name}={address}", settings | {"task": None if task is None else anywhere(task)})
    passphrase = asking(passphrase_file, new=True)() if seal else None
    card = equip(Home(home), name, address, place.settings, listen or place.listen or address, passphrase)
    if as_json:
        print(json.dumps({**card.model_dump(), "card": str(Home(home).card)}))
    else:
        answer.print(f"public key  {card.public_key}\ncard        {Home(home).card}", soft_wrap=True)
        answer.print(
            f"next        p2pnode genesis new with all cards, and copy it to {Home(home).genesis}", soft_wrap=True
        )


@charters.command()
@spread
def new(
    *,
    cards: Annotated[list[Path], typer.Argument(help="Join cards, as `keygen` makes them.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("genesis.json"),
    f: Annotated[int, typer.Option("--f", min=0, help="Liars to tolerate.")] = 0,
    recipe: Recipe = "trimmed",
    exchange: Exchange,
    learning: Learning,
    as_json: AsJson = False,
) -> None:
    """Make a genesis of join cards; the same cards and options make the same network. Every member gets a copy.

    Of a task of your own it names the model and the weights that it begins with, which are written beside it, and which
    every member gets a copy of as well.

    Examples:

      p2pnode genesis new cards/*.json --f 1 --steps 500

      p2pnode genesis new cards/*.json --f 1 --task train.py:Net
    """
    if out.exists():
        raise ConfigError(f"{out}: exists. Remedy: choose another file, a genesis is never overwritten")
    proposal = proposal_of(learning)
    values = genesis_values(f, recipe, exchange, learning, proposal)
    genesis = unite(cards, values)
    try:
        if proposal is not None:
            out.with_name(START).write_bytes(proposal.start)
        genesis.save(out)
    except OSError as error:
        raise ConfigError(f"{out}: {error.strerror}; choose another file") from error
    _tell_charter(genesis, out, as_json=as_json)


@charters.command()
def show(
    file: Annotated[Path, typer.Argument(help="A genesis.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Check a genesis, and tell which network it is of: nodes with the same one find each other, others do not."""
    _tell_charter(Genesis.load(file), file, as_json=as_json)


def _tell_charter(genesis: Genesis, file: Path, *, as_json: bool) -> None:
    names = [member.name for member in genesis.members]
    told = {"network": genesis.network.hex(), "genesis": str(file), "members": names, "f": genesis.f}
    model = genesis.training.model
    if model is not None:
        told["model"] = model.model_dump()
    if as_json:
        print(json.dumps(told))
    else:
        answer.print(f"network  {told['network']}\ngenesis  {file}", soft_wrap=True)
        answer.print(f"members  {', '.join(names)}; f = {genesis.f}, {genesis.recipe.name}", soft_wrap=True)
        if model is not None:
            answer.print(f"model    {genesis.training.task}, {model.parameters:,} parameters", soft_wrap=True)
            answer.print(f"start    {model.start}, to be {START} in each home", soft_wrap=True)


@commands.command()
def seal(home: HomeFolder, passphrase_file: PassphraseFile = None) -> None:
    """Seal the key of a home by a passphrase, for which `run` then asks. Whoever copies the home cannot use it."""

    def sealed_already() -> bytes:
        raise ConfigError("it is sealed already. Remedy: `p2pnode unseal` it first, to choose another passphrase")

    path = Home(home).key
    identity = Identity.load(path, sealed_already)
    identity.resave(path, asking(passphrase_file, new=True)())
    answer.print(f"sealed  {path}\nnext    p2pnode run {home}, which asks for the passphrase", soft_wrap=True)


@commands.command()
def unseal(home: HomeFolder, passphrase_file: PassphraseFile = None) -> None:
    """Put the key of a home in clear again: whoever reads the file has the key."""
    path = Home(home).key
    Identity.load(path, asking(passphrase_file)).resave(path)
    answer.print(f"in clear  {path}", soft_wrap=True)


@commands.command()
@spread
def init(
    *,
    out: Annotated[Path, typer.Argument(help="Folder for the genesis and the homes.", show_default=False)],
    address: Annotated[list[str], typer.Option(help="NAME=HOST:PORT of a member, once for each.", show_default=False)],
    f: Annotated[int, typer.Option("--f", min=0, help="Liars to tolerate.")] = 0,
    recipe: Recipe = "trimmed",
    exchange: Exchange,
    learning: Learning,
    as_json: AsJson = False,
) -> None:
    """Found a network: write its genesis, and a home folder for each member, to be copied to its machine.

    Example:

      p2pnode init lan --f 1 --address a=10.0.0.1:7000 --address b=10.0.0.2:7000 --address c=10.0.0.3:7000 \\
        --address d=10.0.0.4:7000 --address e=10.0.0.5:7000
    """
    charter = NetworkFolder(out).genesis
    if charter.exists():
        raise ConfigError(f"{out}: holds a genesis already. Remedy: choose another folder")
    proposal = proposal_of(learning)
    values = genesis_values(f, recipe, exchange, learning, proposal)
    source, weights = (None, None) if proposal is None else (proposal.source, proposal.start)
    settings = {"data_dir": data_folder(learning.task, learning.data_dir), "task": source}
    genesis = found(out, [_place(text, settings) for text in address], values, weights)
    homes = [str(out / member.name) for member in genesis.members]
    if as_json:
        print(json.dumps({"network": genesis.network.hex(), "genesis": str(charter), "homes": homes}))
    else:
        answer.print(f"network {genesis.network.hex()}\nhomes   {', '.join(homes)}", soft_wrap=True)
        answer.print("next    p2pnode run HOME, on each machine", soft_wrap=True)


def _place(text: str, settings: dict[str, Any]) -> Place:
    name, separator, address = text.partition("=")
    if not separator:
        raise ConfigError(f"address = {text!r}: no name in it. Remedy: write NAME=HOST:PORT")
    host, _, port = address.rpartition(":")
    local = host == "localhost" or host.startswith("127.")
    # Elsewhere the address may be a name or a router's, that the machine itself does not have.
    return Place(name, address, settings, address if local else f"0.0.0.0:{port}")
