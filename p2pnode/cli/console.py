"""What people are told, and how a command ends: exit codes 0 good, 1 the run failed, 2 a mistake in the settings."""

from rich.console import Console

EXIT_FAILED, EXIT_SETTINGS = 1, 2

people = Console(stderr=True)
"""For what is said on the way."""

answer = Console()
"""For what was asked for."""


def say(what: str, message: object) -> None:
    """A line for people, on standard error; the message is shown as it is."""
    people.print(what, end=" ")
    people.print(str(message), markup=False, highlight=False, soft_wrap=True)
