"""How a table is shown: which columns in which order, under which names, with how many digits. Flags or a YAML file.

    columns:                       # in this order; without it a few of cost and of quality
      - ssim
      - {metric: seconds.stylize, name: time, decimals: 2}
    names: {"gatys.zoo[num_steps=50]": "Gatys et al."}
    sort: family                   # or: measured, or the name of a column (best first)
    against: adain.zoo             # a method that all others are compared with, beside the best
    size: 512                      # without it the largest that most methods did
    intervals: plusminus           # or: brackets, none
    digits: 3
    precision: false               # no column for the numeric precision where methods differ in it
    sanity: false                  # no sanity rows

CSV and JSON hold every number in full and are not touched by it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from zoo.errors import ConfigError, RegistryError
from zoo.registry import Strict, explain, read_yaml


class ColumnChoice(Strict):
    """A column by the name of its metric, with another heading or a fixed number of decimals."""

    metric: str
    name: str | None = None
    decimals: int | None = Field(default=None, ge=0, le=9)


def _column(value: Any) -> Any:
    return {"metric": value} if isinstance(value, str) else value


class Layout(Strict):
    """The choices of the tables that are read."""

    columns: list[Annotated[ColumnChoice, BeforeValidator(_column)]] | None = Field(default=None, min_length=1)
    names: dict[str, str] = Field(default_factory=dict)
    sort: str = "family"
    against: str | None = None
    size: int | None = Field(default=None, ge=0)
    intervals: Literal["plusminus", "brackets", "none"] = "plusminus"
    digits: int = Field(default=3, ge=1, le=9)
    precision: bool = True
    sanity: bool = True

    @classmethod
    def make(cls, source: str | Path | None = None, **changes: Any) -> Layout:
        """From a YAML file, or a comma-separated list of columns, with single choices replaced.

        ``changes`` that are None change nothing. ConfigError names the first fault and its place.
        """
        data: Any = {}
        where = "layout"
        if source is not None and str(source).endswith((".yaml", ".yml")):
            where = Path(source).name
            try:
                data = read_yaml(Path(source))
            except RegistryError as error:
                raise ConfigError(str(error)) from error
        elif source is not None:
            data = {"columns": [name.strip() for name in _split(str(source)) if name.strip()]}
        if not isinstance(data, dict):
            raise ConfigError(f"{where} must be a mapping such as 'columns: [ssim]'.")
        data = {**data, **{key: value for key, value in changes.items() if value is not None}}
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise ConfigError(explain(error, where)) from error


def _split(text: str) -> list[str]:
    """At commas outside brackets: ``ssim[channels=rgb],lp``."""
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
