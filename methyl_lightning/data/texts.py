"""JSON and CSV files of a run folder: as they were when the run ended, or refused in one line."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import TypeAdapter, ValidationError

from methyl_lightning.data.sealed import DamagedError
from methyl_lightning.files import InputError, replacing

SUMS = "SHA256SUMS"  # of a run folder, as sha256sum writes and checks it
# what a run leaves, in its folder and in those of its references
SEALED = [place + name for place in ("", "references/*/") for name in ("*.json", "*.csv", "log/*/*.csv")]
REMEDY = "test the run's checkpoint again with methyl_lightning.evaluate"


def seal_texts(folder: Path) -> None:
    """Write the checksums of a run's JSON and CSV files, at its end."""
    paths = sorted(path for pattern in SEALED for path in folder.glob(pattern))
    with replacing(folder / SUMS, "checksums") as temporary:
        temporary.write_text("".join(f"{_digest(path)}  {path.relative_to(folder)}\n" for path in paths))


def check_text(path: Path) -> None:
    """Compare a file with the checksum that its run has written, if there is one.

    Raises
    ------
    DamagedError
        If it is another than at the run's end.
    """
    for folder in path.parents[:5]:  # up to the run's from references/NAME/log/0
        sums = folder / SUMS
        if sums.is_file() and path.is_file():
            name = f"  {path.relative_to(folder)}"
            lines = [line for line in sums.read_text(errors="replace").splitlines() if line.endswith(name)]
            if lines and lines != [_digest(path) + name]:
                raise DamagedError(
                    f"{path}: damaged, its checksum is another; {REMEDY}, or remove {SUMS} if it was changed on purpose"
                )


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def read_json(path: Path, keys: Iterable[str] = (), kind: Any = Any) -> dict[str, Any]:
    """Read a JSON file of a run folder, which must hold some keys.

    Parameters
    ----------
    path
        The file.
    keys
        What it must hold.
    kind
        Type of all that it holds, as pydantic understands it.

    Raises
    ------
    InputError
        If it is missing or broken, lacks a key, or a value is of another type.
    """
    remedy = "make it again with methyl_lightning.train or .evaluate"
    check_text(path)
    try:
        contents = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: missing or broken ({error}); {remedy}") from error
    for key in keys:
        if not isinstance(contents, dict) or key not in contents:
            raise InputError(f"{path}: holds no {key!r}; {remedy}")
    try:
        TypeAdapter(kind).validate_json(json.dumps(contents), strict=True)
    except ValidationError as error:
        wrong = error.errors()[0]
        raise InputError(f"{path}: {'.'.join(map(str, wrong['loc']))}: {wrong['msg'].lower()}; {remedy}") from error
    return contents


def read_table(path: Path, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a CSV table of a run folder, which must have some columns; empty where the run has none and none is needed.

    Raises
    ------
    InputError
        If it is no table, lacks a column, or is another than at the run's end.
    """
    check_text(path)
    try:
        table = pd.read_csv(path) if path.is_file() else pd.DataFrame()
    except (ValueError, OSError) as error:  # pandas' own errors are ValueErrors
        raise InputError(f"{path}: not a table ({error}); {REMEDY}") from error
    for column in columns:
        if column not in table:
            raise InputError(f"{path}: holds no column {column!r}; {REMEDY}")
    return table
