"""What a store was made from."""

import hashlib
from pathlib import Path
from typing import Any

import pandas as pd

from methyl_lightning.data.store import UNKNOWN_POSITION


def checksum(path: Path) -> dict[str, Any]:
    """Give the name, the size and the SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest}


def provenance(
    source: str,
    settings: dict[str, Any],
    paths: list[Path],
    genes: pd.DataFrame,
    shape: tuple[int, int],
    missing_share: float,
) -> dict[str, Any]:
    """Say in plain JSON what a store was made from, how, and how much is in it.

    Parameters
    ----------
    source, settings
        Name of the function that made it, and its arguments.
    paths
        Files that were read, each once.
    genes
        Gene table of the store.
    shape, missing_share
        CpGs and samples of the grid, and the share of its cells without a value.
    """
    counts = {
        "cpgs": shape[0],
        "samples": shape[1],
        "genes": len(genes),
        "genes_without_coordinates": int((genes["start"] == UNKNOWN_POSITION).sum()),
        "missing_share": missing_share,
    }
    return {"source": source, "settings": settings, "inputs": [checksum(path) for path in paths], "counts": counts}
