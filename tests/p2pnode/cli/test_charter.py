"""Options that several commands share become parameters of each, and come back as one value."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from p2pnode.cli.charter import spread


@dataclass(frozen=True)
class Colour:
    red: Annotated[int, typer.Option(help="How red.")] = 1
    green: Annotated[int | None, typer.Option(help="How green.")] = None


def test_a_group_of_options_is_spread_in_its_place_and_gathered_again():
    app, got = typer.Typer(), []

    @app.command()
    @spread
    def paint(*, name: str, colour: Colour, thick: Annotated[bool, typer.Option("--thick")] = False) -> None:
        """Paint."""
        got.append((name, colour, thick))

    told = CliRunner().invoke(app, ["--help"]).output
    assert told.index("Paint.") < told.index("--red") < told.index("--green") < told.index("--thick")
    assert "colour" not in told
    assert CliRunner().invoke(app, ["wall", "--green", "7", "--thick"]).exit_code == 0
    assert CliRunner().invoke(app, ["door", "--red", "2"]).exit_code == 0
    assert got == [("wall", Colour(1, 7), True), ("door", Colour(2, None), False)]
