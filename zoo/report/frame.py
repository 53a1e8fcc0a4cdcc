"""The rows of a run as a pandas DataFrame, for questions that no table answers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd

from zoo.bench.folder import Folder
from zoo.bench.rows import Row, latest, read_rows
from zoo.report.tables import read_run

_NUMBERS = {"size": "int64", "strength": "float64", "value": "float64"}


def results(folder: str | Path) -> pd.DataFrame:
    """Return the rows of a results folder that count, one measured number or failure each, in the order of the file.

    The columns are the fields of :class:`zoo.bench.rows.Row`: texts are ``string`` (missing where a number is of no
    picture), ``size`` and ``seed`` int64 (seeds from 2**63 on: uint64), ``strength`` and ``value`` float64 (NaN where
    ``status`` is not ``ok``), ``utc`` a time in UTC, ``samples`` a tuple of seconds. In place of the field ``unit``,
    ``attrs["units"]`` gives the unit by metric, such as ``s``; empty where a metric has none. ``attrs["protocol"]`` is
    the protocol's name and hash, ``attrs["conditions"]`` what run.json says of machine, device, threads and version.

    Raises ProtocolError where the folder holds no results, or damaged ones.
    """
    place = Folder(Path(folder))
    run_file = read_run(place)
    rows = latest(read_rows(place.rows))
    names = [field.name for field in dataclasses.fields(Row) if field.name != "unit"]
    frame = pd.DataFrame({name: pd.Series([getattr(row, name) for row in rows], dtype=object) for name in names})
    texts = {name: "string" for name in names if name not in (*_NUMBERS, "seed", "utc", "samples")}
    frame = frame.astype({**texts, **_NUMBERS})
    frame["seed"] = pd.to_numeric(frame["seed"])
    frame["utc"] = pd.to_datetime(frame["utc"], utc=True).astype("datetime64[s, UTC]")
    frame.attrs = {
        "units": {row.metric: row.unit for row in rows},
        "protocol": run_file["protocol"]["id"],
        "conditions": run_file["conditions"],
    }
    return frame
