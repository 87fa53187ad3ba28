"""Tables for people: a testnet while it runs and when it is over, and one node's status."""

import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from p2pnode.doctor import Finding
    from p2pnode.testnet import NodeView, Plan

_LINE_EVERY_S = 5.0
"""Where no terminal shows a live table, a line of progress so often."""

_VIOLATIONS_MAX = 5
"""Violations shown to people; `--json` tells all."""

_ROOMY_COLUMNS = 80
"""On fewer a table gives up its margins before its numbers."""

_NAMES_MAX = 2
"""Names shown of those that are waited for."""


class Progress:
    """Shows a testnet while it runs: a live table on a terminal, elsewhere a line now and then.

    Args:
        console: where to.
        plan: what is run.
        quiet: show lines, even on a terminal.
    """

    def __init__(self, console: Console, plan: "Plan", *, quiet: bool) -> None:
        self._console = console
        self._plan = plan
        self._began = time.monotonic()
        self._said = 0.0
        self._live = (
            Live(console=console, transient=True, refresh_per_second=4) if not quiet and console.is_terminal else None
        )

    def __enter__(self) -> "Progress":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, nodes: "list[NodeView]") -> None:
        """Show the nodes as they are."""
        seconds = time.monotonic() - self._began
        if self._live is not None:
            self._live.update(Group(_live_table(nodes, self._plan), Text(f"{seconds:.0f} s", style="dim")))
        elif seconds - self._said >= _LINE_EVERY_S:
            self._said = seconds
            self._console.print(_line(nodes, self._plan, seconds), highlight=False, soft_wrap=True)


def summary(told: dict[str, Any], width: int) -> Table:
    """The honest nodes of a finished testnet, for a terminal of so many columns."""
    padding = (0, 1) if width >= _ROOMY_COLUMNS else (0, 0)
    table = Table(title=_title(told), title_justify="left", padding=padding)
    for name in ("node", "accuracy", "loss", "steps", "MiB out", "MiB in", "MiB peak", "exit"):
        table.add_column(name, justify="left" if name == "node" else "right")
    for node in told["honest"]:
        table.add_row(
            node["name"],
            _number(node["accuracy"], ".4f"),
            _number(node["loss"], ".4f"),
            str(node["steps"]),
            _mib(node["bytes_sent"]),
            _mib(node["bytes_received"]),
            _number(node["peak_rss_mib"], ".0f"),
            _exit(node["exit"]),
        )
    return table


def perturbations(told: dict[str, Any]) -> Table:
    """What was done to a testnet, and how long each healing took."""
    table = Table(title="perturbations, in order", title_justify="left")
    for name in ("what", "began", "lasted", "first step", "all stepped again"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for one in told["perturbations"]:
        outcome = one["outcome"]
        what = f"{one['kind']} of {', '.join(one['nodes'])}"
        began = f"step {one['at_step']}" if "at_step" in one else f"{one['at_s']:g} s"
        lasted = f"{one['for_s']:g} s" if "for_s" in one else "–"
        if outcome is None:
            table.add_row(what, began, lasted, "–", Text("never began", "red"))
            continue
        took = Text("not all", "red") if outcome["missing"] else _number(outcome["seconds"], ".1f") + " s"
        table.add_row(
            _with_split(what, outcome["split"]), began, lasted, _number(outcome["first_s"], ".1f") + " s", took
        )
    return table


def _with_split(what: str, split: dict[str, Any] | None) -> str:
    """Of a partition also who was on each side, and what is known of it."""
    if split is None:
        return what
    sides = " | ".join(map(str, split["sides"]))
    if max(split["sides"]) >= split["quorum"]:
        return f"{what}\n{sides} nodes, one of which is a quorum of {split['quorum']}"
    stepped = "stepped: " + ", ".join(split["stepped"]) if split["stepped"] else "nobody stepped"
    return f"{what}\n{sides} nodes, neither a quorum of {split['quorum']}: {stepped}"


def closing(told: dict[str, Any], path: Path) -> Text:
    """What a finished testnet comes to, in a few lines."""
    rate = _number(told["steps_per_second"], ".1f")
    accused = sorted({row["accused"] for row in told["evidence"]})
    proof = f"against {', '.join(accused)}, {len(told['evidence'])} files" if accused else "none"
    lines = [
        f"accuracy      {told['accuracy_min']:.4f} at least, {told['accuracy_mean']:.4f} on average",
        f"disagreement  {told['disagreement']:.4f}",
        f"time          {told['seconds']:.1f} s, first step after {told['startup_seconds']:.1f} s, {rate} steps/s",
        f"evidence      {proof}",
        f"summary       {path}",
    ]
    return Text("\n".join(lines))


def status(told: dict[str, Any]) -> Table:
    """One node's status."""
    table = Table(show_header=False, title=f"{told['name']}, recipe {told['recipe']}", title_justify="left")
    faults = ", ".join(f"{row['peer']} {row['fault']} ({row['count']})" for row in told["faults"])
    rows = {
        "step": f"{told['step']} of {told['steps']}",
        "phase": f"{told['phase']} for {told['phase_seconds']:.1f} s, in slot {_slot(told)}",
        "waits for": _waits(told["waiting"]),
        "late": "\n".join(map(_late, told["late"])) or "nobody",
        "connected": ", ".join(told["connected"]) or "nobody",
        "accuracy": _number(told["accuracy"], ".4f"),
        "loss": _number(told["loss"], ".4f"),
        "faults seen": faults or "none",
        "banned": ", ".join(told["banned"]) or "nobody",
        "proofs against": ", ".join(told["evidence"]) or "nobody",
        "sent, received": f"{_mib(told['bytes_sent'])} MiB, {_mib(told['bytes_received'])} MiB",
        "peak memory": f"{told['peak_rss_mib']:.0f} MiB",
    }
    for key, value in rows.items():
        table.add_row(key, value)
    return table


def evaluation(told: dict[str, Any]) -> Table:
    """What a model is worth."""
    table = Table(show_header=False, title=f"{told['model']}, {told['task']}", title_justify="left")
    steps = "unknown" if told["step"] is None else f"{told['step']:,}"
    table.add_row("steps", steps)
    table.add_row("parameters", f"{told['parameters']:,}")
    table.add_row("accuracy", _number(told["accuracy"], ".4f"))
    table.add_row("loss", _number(told["loss"], ".4f"))
    table.add_row("test samples", f"{told['samples']:,}")
    return table


def findings(found: "list[Finding]") -> Table:
    """What an examination found."""
    table = Table(show_header=False, box=None)
    for finding in found:
        style = {"good": "green", "note": "yellow", "bad": "bold red"}[finding.verdict]
        table.add_row(Text(finding.verdict, style), finding.check, Text(finding.told))
    return table


def forecast(told: dict[str, Any]) -> Table:
    """What a network tolerates and will cost, as `plan` tells it."""
    title = f"{told['recipe']} on {told['task']}: {told['nodes']} nodes, f = {told['f']}"
    table = Table(title=title, title_justify="left", show_header=False)
    for one in told["exchanges"]:
        bound = f"{one['needs']}, so f ≤ {one['tolerates']} of {told['nodes']}\n{one['source']}"
        table.add_row(f"{one['what']} by {one['rule']} over {one['broadcast']}", bound)
    table.add_row("a step sends, and receives", f"{told['bytes'] / 1e6:.3g} MB, {told['words']} messages, a node")
    level, ahead = (told[key] / 2**20 for key in ("memory_bytes", "memory_ahead_bytes"))
    table.add_row("vectors in memory", f"{level:.1f} MiB a node; {ahead:.1f} MiB where all others are a slot ahead")
    where = "all on this machine" if told["link"] is None else f"each on its own machine, {told['link'] / 1e6:g} Mbit/s"
    table.add_row("a step takes", f"{1e3 * told['seconds']:.3g} ms, {told['steps_per_second']:.3g} steps/s; {where}")
    table.add_row("without a defence", f"{1e3 * told['seconds_undefended']:.3g} ms (dsgd): × {told['slowdown']:.2f}")
    table.add_row("a core takes, of it", ", ".join(f"{name} {1e3 * s:.2g} ms" for name, s in told["share"].items()))
    return table


class Bar:
    """Shows how much of a simulation is done: a bar on a terminal, elsewhere a line now and then.

    Args:
        console: where to.
        total: how many units there are.
        quiet: show lines, even on a terminal.
        unit: what is counted.
    """

    def __init__(self, console: Console, total: int, *, quiet: bool, unit: str = "runs") -> None:
        self._console = console
        self._total = total
        self._unit = unit
        self._violations = 0
        self._said = time.monotonic()
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        live = console.is_terminal and not quiet
        self._bar = RichProgress(*columns, console=console, transient=True) if live else None
        self._task = self._bar.add_task(unit, total=total) if self._bar is not None else None

    def __enter__(self) -> "Bar":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, done: int, violations: int) -> None:
        """So many units are done, and so many runs broke a guarantee."""
        self._violations = violations
        self.advance(done)

    def advance(self, done: int) -> None:
        """So many units are done."""
        words = f"{self._unit}, {self._violations} violations"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, description=words)
        elif time.monotonic() - self._said >= _LINE_EVERY_S:
            self._said = time.monotonic()
            self._console.print(f"{done} of {self._total} {words}", highlight=False)


def simulation(told: dict[str, Any]) -> Table:
    """What came out of many simulated runs."""
    violations = Text(str(told["violations"]), style="bold red" if told["violations"] else "green")
    table = Table(title=_simulation_title(told), show_header=False)
    table.add_row("runs", f"{told['runs']:,}")
    table.add_row("violations", violations)
    table.add_row("deliveries", f"{told['deliveries']:,}")
    table.add_row("messages", _against(told["messages"], told["quiet_messages"]))
    table.add_row("bytes", _against(told["bytes"], told["quiet_bytes"]))
    table.add_row("virtual time", f"{told['virtual_seconds']:,.0f} s")
    table.add_row("time", f"{told['wall_seconds']:.1f} s")
    table.add_row("liars convicted", f"in {told['convicted']:,} runs")
    if told["accuracy_min"] is not None:
        table.add_row("accuracy", f"{told['accuracy_min']:.4f} at least, {told['accuracy_mean']:.4f} on average")
    table.add_row("trace digest", told["trace_digest"])
    return table


def violations(told: dict[str, Any]) -> list[str]:
    """The first runs in which a guarantee did not hold, and how to run them again."""
    lines = [f"seed {one['seed']}: {one['found']}\n  {one['replay']}" for one in told["broken"][:_VIOLATIONS_MAX]]
    more = len(told["broken"]) - _VIOLATIONS_MAX
    return lines + ([f"and {more} more"] if more > 0 else [])


def _simulation_title(told: dict[str, Any]) -> str:
    return f"{told['recipe']}: {told['nodes']} nodes, {told['byzantine']} lying, f = {told['f']}"


def _against(count: int, quiet: int) -> str:
    return f"{count:,} ({count / quiet:.2f} of what quiet runs take)"


def _live_table(nodes: "list[NodeView]", plan: "Plan") -> Table:
    table = Table(title=f"{plan.nodes} nodes, {plan.byzantine} lying", title_justify="left")
    for name in ("node", "step", "loss", "accuracy", "phase", "waits for"):
        table.add_column(name, justify="right" if name in ("step", "loss", "accuracy") else "left")
    for node in nodes:
        told = node.status
        label = Text(node.name) if node.honest else Text(f"{node.name} (lies)", style="red")
        table.add_row(
            label,
            f"{node.result['steps'] if node.result else told.get('step', 0)} / {plan.values['training']['steps']}",
            _number(told.get("loss"), ".4f"),
            _number(told.get("accuracy"), ".4f"),
            _end(node.exit) if node.exit is not None else told.get("phase", "starting"),
            "" if node.exit is not None else _few(told.get("waits_for", [])),
        )
    return table


def _line(nodes: "list[NodeView]", plan: "Plan", seconds: float) -> str:
    honest = [node for node in nodes if node.honest and node.exit is None]
    known = [node for node in honest if node.status]
    if not known:
        return f"{seconds:4.0f} s  starting"
    slowest = min(known, key=lambda node: node.step)
    accuracies = [node.status["accuracy"] for node in known if node.status["accuracy"] is not None]
    accuracy = f", accuracy {min(accuracies):.4f} at least" if accuracies else ""
    waits = slowest.status["waits_for"]
    waiting = f", {slowest.name} waits for {_few(waits)}" if waits else ""
    return f"{seconds:4.0f} s  step {slowest.step} of {plan.values['training']['steps']}{accuracy}{waiting}"


def _title(told: dict[str, Any]) -> str:
    lying = f"{told['byzantine']} lying ({told['attack']})" if told["byzantine"] else "all honest"
    exchanges = ", then ".join(f"{one['what']} by {one['rule']} over {one['broadcast']}" for one in told["exchanges"])
    return f"{told['recipe']} on {told['task']}: {told['nodes']} nodes, {lying}, f = {told['f']}\n{exchanges}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else f"{value:{form}}"


def _mib(value: int | None) -> str:
    return "–" if value is None else f"{value / 2**20:.1f}"


def _late(told: dict[str, Any]) -> str:
    due = f"awaited for {told['seconds']:.1f} s, expected within {told['deadline']:.1f} s"
    return f"{told['peer']} owes slot {_slot(told)}: {due}; {_said(told['said'])}"


def _waits(told: dict[str, Any] | None) -> str:
    """How many values are here, and a line for each member whose value is not."""
    if told is None:
        return "nobody"
    return "\n".join([f"{told['here']} values of {told['needed']} are here", *map(_missing, told["missing"])])


def _missing(told: dict[str, Any]) -> str:
    state = "".join([", late" if told["late"] else "", "" if told["connected"] else ", not connected"])
    return f"{told['peer']}{state}: no {told['lacks']} yet; {_said(told['said'])}"


def _said(told: dict[str, Any] | None) -> str:
    """What a member said last."""
    if told is None:
        return "nothing heard"
    about = f" of slot {_slot(told)}" if "step" in told else ""
    return f"last heard: {told['what']}{about}, {told['seconds']:.1f} s ago"


def _slot(told: dict[str, Any]) -> str:
    """Step, exchange and sub-round."""
    return f"{told['step']}.{told['exchange']}.{told['sub_round']}"


def _few(names: list[str]) -> str:
    """The first names and how many more, so that a line stays a line."""
    return ", ".join(names[:_NAMES_MAX]) + (f" +{len(names) - _NAMES_MAX}" if len(names) > _NAMES_MAX else "")


def _end(code: int) -> str:
    """How a node ended, among those that run."""
    return "done" if code == 0 else f"ended: {_exit(code)}"


def _exit(code: int | None) -> str:
    return "–" if code is None else f"signal {-code}" if code < 0 else str(code)
