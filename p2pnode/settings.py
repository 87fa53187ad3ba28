"""Checked settings: every table of a file or command line becomes a frozen model, or an error that helps.

Each field's description is the remedy that an error about it prints.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic_core import ErrorDetails

from p2pnode.errors import ConfigError

_PORT_MAX = 2**16 - 1

_SHOWN_MAX = 80
"""Characters of a key or value that an error repeats."""


def _has_port(address: str) -> str:
    if split_address(address)[1] > _PORT_MAX:
        raise ValueError(f"a port is at most {_PORT_MAX}")
    return address


Address = Annotated[str, Field(pattern=r"^[^:\s]+:[0-9]{1,5}$"), AfterValidator(_has_port)]
"""host:port"""


class Settings(BaseModel):
    """A table of settings: unknown keys are refused, values are not guessed from other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _can_be_written(cls, value: object) -> object:
        """Half a surrogate pair passes for text until a file or a hash needs its bytes."""
        if isinstance(value, str):
            value.encode()
        return value


Table = TypeVar("Table", bound=Settings)


def check(table: type[Table], values: Mapping[str, Any], source: str | Path) -> Table:
    """The values as `table`.

    Raises:
        ConfigError: naming, for each mistake, the source, key, value, reason and remedy.
    """
    try:
        return table.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(table, detail, source) for detail in error.errors())) from error


def load(table: type[Table], path: Path, remedy: str, named: str | None = None) -> Table:
    """The values of a TOML file as `table`.

    Args:
        table: what they must be.
        path: the file.
        remedy: what to do where it cannot be read.
        named: how to name it there; None: by its path.

    Raises:
        ConfigError: if the file is missing or wrong anywhere; see `check`.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{named or path}: {error.strerror}. Remedy: {remedy}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not TOML ({error}). Remedy: mend that line") from error
    return check(table, values, path)


def _explain(table: type[Settings], detail: ErrorDetails, source: str | Path) -> str:
    where = ".".join(str(part)[:_SHOWN_MAX] for part in detail["loc"]) or "(all)"
    reason = detail["msg"].removeprefix("Value error, ")
    reason = reason[0].lower() + reason[1:]
    value = "" if detail["type"] == "missing" else f" = {_shown(detail['input'])}"
    return f"{source}: {where}{value}: {reason}. Remedy: {_remedy(table, detail)}"


def _shown(value: object) -> str:
    try:
        return repr(str(value)[:_SHOWN_MAX])
    except (ValueError, RecursionError):  # thousands of digits, or of brackets
        return f"a {type(value).__name__} too large to show"


def _remedy(table: type[Settings], detail: ErrorDetails) -> str:
    if detail["type"] == "extra_forbidden":
        return "remove it, or mend its spelling"
    field: Any = None
    model: Any = table
    for part in detail["loc"]:
        fields = getattr(model, "model_fields", {})
        if part in fields:
            field = fields[part]
            model = _inner(field.annotation)
    return (field.description if field is not None and field.description else None) or "correct the value"


def _inner(annotation: Any) -> Any:  # noqa: ANN401  whatever a field may be annotated with
    """The model inside `X`, `X | None`, `tuple[X, ...]`."""
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of a checked address."""
    host, _, port = address.rpartition(":")
    return host, int(port)
