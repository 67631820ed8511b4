"""What is interpreted: the settings, and the CpGs and samples that are looked at.

Legend: C CpGs, S samples.
"""

from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from pydantic import Field

from methyl_lightning.data.splits import PARTS, Split
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.interpret.cis import map_rows
from methyl_lightning.interpret.genes import Groups, cpg_classes
from methyl_lightning.interpret.mutagenesis import LETTERS, UNKNOWN

INSERT_AT = 10  # bases behind the C where motifs are put


class Settings(NamedTuple):
    """What is interpreted; see ``--help`` of the command."""

    cpgs: str | list[str] = "all"
    samples: str | list[str] = "all"
    most_cpgs: int = 1000
    most_samples: int = 200
    groupby: str = "cohort"
    knock_out: list[str] | None = None
    gene_sets: str | None = None
    motifs: str | None = None
    mutate: Annotated[int, Field(ge=0)] | list[str] = 10
    insert: list[str] | None = None
    cis: str | None = None
    exact: int = 100
    top: int = 50
    seed: int = 0


class Chosen(NamedTuple):
    """Rows of the store that are looked at, mutated and knocked out together, and what is known of them."""

    store: Store
    cpg_C: np.ndarray
    sample_S: np.ndarray
    mutated_C: np.ndarray
    knocked_G: np.ndarray
    groups: Groups


def choose(store: Store, split: Split, settings: Settings) -> Chosen:
    """Choose CpGs and samples: a part of the split, or by name; of more than wanted some are drawn by the seed."""
    rng = np.random.default_rng([settings.seed, 9])
    cpg_C = _rows("cpgs", settings.cpgs, store.cpgs["id"], split.cpg, settings.most_cpgs, rng)
    sample_S = _rows("samples", settings.samples, store.samples["id"], split.sample, settings.most_samples, rng)
    if settings.groupby not in store.samples:
        columns = ", ".join(store.samples.columns)
        raise InputError(f"groupby={settings.groupby}: no column of the samples; take one of {columns}")
    knocked_G = np.zeros(0, dtype=int)
    if settings.knock_out is not None:
        knocked_G = named_rows("knock_out", settings.knock_out, store.genes["symbol"])
    room = store.window // 2 - INSERT_AT
    for motif in settings.insert or []:
        if not motif or set(motif) - set(LETTERS) or len(motif) > room:
            raise InputError(f"insert={motif}: must be 1 to {room} letters of {LETTERS}")
    if settings.cis is not None:
        cpg_C = np.union1d(cpg_C, map_rows(store, settings.cis))
    if isinstance(settings.mutate, list):
        mutated_C = named_rows("mutate", settings.mutate, store.cpgs["id"])
        cpg_C = np.union1d(cpg_C, mutated_C)
    else:
        known_C = (store.sequence_CL[cpg_C] < UNKNOWN).any(axis=1)
        mutated_C = np.sort(rng.permutation(cpg_C[known_C])[: settings.mutate])
    mean_C = np.nanmean(np.column_stack([store.beta(cpg_C, sample_S), np.full(len(cpg_C), np.nan)]), axis=1)
    classes = cpg_classes(store.cpgs["island"].to_numpy(str)[cpg_C], mean_C)
    table = store.samples.iloc[sample_S]
    groups = Groups(table["patient"].to_numpy(str), table[settings.groupby].to_numpy(str), mean_C, classes)
    return Chosen(store, cpg_C, sample_S, mutated_C, knocked_G, groups)


def _rows(
    setting: str,
    wanted: str | list[str],
    names: pd.Series,
    parts: dict[str, np.ndarray],
    most: int,
    rng: np.random.Generator,
) -> np.ndarray:
    if wanted == "all":
        rows = np.concatenate([parts[part] for part in PARTS])
    elif isinstance(wanted, str) and wanted in PARTS:
        rows = parts[wanted]
    else:
        if isinstance(wanted, str):
            try:
                wanted = Path(wanted).read_text().split()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{setting}={wanted}: neither all, {', '.join(PARTS)} nor a file of names ({error})"
                ) from error
        rows = named_rows(setting, wanted, names)
    return np.sort(rng.permutation(rows)[:most])


def named_rows(setting: str, wanted: list[str], names: pd.Series) -> np.ndarray:
    """Return the rows of names, or refuse the first that is not there."""
    rows = pd.Index(names).get_indexer(wanted)
    if not len(wanted) or (rows < 0).any():
        unknown = [name for name, row in zip(wanted, rows, strict=True) if row < 0]
        what = (
            f"{unknown[0]!r} is not in the store ({len(unknown)} of {len(wanted)} are not)" if unknown else "is empty"
        )
        raise InputError(f"{setting}=: {what}; names must be those of the store, as {names.iloc[0]!r}")
    return np.unique(rows)
