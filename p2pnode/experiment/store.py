"""What came out of trials, kept: one JSON line for each in OUT/results.jsonl, so that an experiment can go on.

A line is appended by one write and is on the disk before the next trial's is. Whoever is killed in between leaves at
most the beginning of a last line, which is no record: its trial is run again. The last good line of a trial counts.
"""

import fcntl
import math
import os
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from pydantic import ConfigDict, ValidationError

from p2pnode.errors import ConfigError
from p2pnode.experiment.grid import canonical, key_of
from p2pnode.settings import Settings
from p2pnode.simulation.trial import Outcome, Trial

FILE = "results.jsonl"


class Result(Settings):
    """An outcome, as it is kept; accuracies are fractions, of the honest nodes only.

    What is not finite, as the diameter of models that diverged, is None.
    """

    model_config = ConfigDict(extra="ignore")

    accuracies: dict[str, float]
    mean: float
    worst: float
    honest_diameter: float | None
    curve: tuple[tuple[int, float, float], ...]
    seconds: float
    deliveries: int
    violations: str | None


class Record(Settings):
    """A trial that is over: with its result, or with why it has none.

    Args:
        key: the trial's.
        trial: its canonical settings.
        outcome: None if it failed.
        error: None unless it failed; the first line tells the cause.
    """

    key: str
    trial: dict[str, Any]
    outcome: Result | None
    error: str | None

    @classmethod
    def of(cls, trial: Trial, outcome: Outcome | None, error: str | None) -> "Record":
        """The record of a trial; of a failed one, too, if the outcome lacks a number that it must have."""
        result = None
        if outcome is not None:
            try:
                result = Result.model_validate(_finite(asdict(outcome)), strict=False)
            except ValidationError as mistake:
                error = f"the outcome is none: {mistake}"
        return cls(key=key_of(trial), trial=canonical(trial), outcome=result, error=error)


class Store:
    """The results in a folder; only one process at a time has it open.

    Args:
        folder: created if it is missing.

    Raises:
        ConfigError: if the folder cannot be written, or another process has it open.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise ConfigError(f"{error.filename}: {error.strerror}. Remedy: choose another folder") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            raise ConfigError(
                f"{self.path}: another experiment writes to it. Remedy: wait for it, or choose another folder"
            ) from error
        self.records = self._read()

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)

    def append(self, record: Record) -> None:
        """Keep a record; it is on the disk when this returns.

        Raises:
            ConfigError: if the disk does not take it.
        """
        line = record.model_dump_json().encode() + b"\n"
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(0, "the disk took a part only")  # noqa: TRY301  as any other refusal of the disk
            os.fsync(self._file)
        except OSError as error:
            raise ConfigError(f"{self.path}: {error.strerror}. Remedy: make room, and run it again") from error
        self.records[record.key] = record

    def _read(self) -> dict[str, Record]:
        """The records by key; what follows the last complete line is cut off, so that no line is glued to it."""
        content = self.path.read_bytes()
        complete = content.rfind(b"\n") + 1
        if complete < len(content):
            os.ftruncate(self._file, complete)
        records = {}
        for line in content[:complete].splitlines():
            try:
                record = Record.model_validate_json(line)
            except ValidationError:
                continue  # a damaged line: its trial is run again
            records[record.key] = record
        return records


def _finite(value: Any) -> Any:  # noqa: ANN401  whatever JSON holds
    """The value with None for each number that JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return value
