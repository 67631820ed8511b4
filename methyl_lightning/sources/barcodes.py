"""TCGA barcodes: which columns of two tables are one sample.

A barcode names the patient (12 characters), the tissue (15), the vial (16) and what was made of it (28). A sample is a
patient and a tissue; 12 characters stand for the primary tumour.
"""

import logging
import re
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from methyl_lightning.sources.text import refuse_repeats
from methyl_lightning.store import InputError

log = logging.getLogger(__name__)
BARCODE = re.compile(r"^(?P<patient>TCGA-\w\w-\w{4})(?:-(?P<tissue>\d\d)(?P<vial>[A-Z]?)(?:-[\w-]+)?)?$")
PRIMARY = "01"
TISSUE_TYPES = {PRIMARY: "Primary Tumor", "06": "Metastatic", "11": "Solid Tissue Normal"}


class Pairs(NamedTuple):
    """Samples that two tables share: ids, and the names of their columns in the one and the other table."""

    ids: list[str]
    in_methylation: list[str]
    in_expression: list[str]


def is_barcode(name: str) -> bool:
    """Tell whether a name is a barcode, with dashes or dots."""
    return BARCODE.fullmatch(name.replace(".", "-")) is not None


def read_barcodes(path: Path, columns: list[str]) -> pd.DataFrame:
    """Split the names of columns: column, barcode (with dashes), id (patient and tissue), vial."""
    for name in columns:
        if not is_barcode(name):
            raise InputError(f"{path}: column {name!r} is not a barcode such as TCGA-A1-A0SB-01; rename or remove it")
    barcode = pd.Series(columns).str.replace(".", "-")
    refuse_repeats(path, "barcode", barcode.tolist())
    parts = barcode.str.extract(BARCODE)
    id_ = parts["patient"] + "-" + parts["tissue"].fillna(PRIMARY)
    n_short = int(parts["tissue"].isna().sum())
    if n_short:
        log.info(f"{path}: {n_short:,} barcodes of 12 characters are taken as primary tumours (-{PRIMARY})")
    return pd.DataFrame({"column": columns, "barcode": barcode, "id": id_, "vial": parts["vial"].fillna("")})


def pair_samples(
    methylation_path: Path, methylation: list[str], expression_path: Path, expression: list[str]
) -> tuple[Pairs, list[str]]:
    """Find the samples in both tables, in the order of the methylation, one column each.

    Of several columns of one patient and tissue the one is taken whose vial both tables have; of several such, the one
    whose barcode sorts first (vial A before B).

    Returns
    -------
    tuple
        The pairs, and the barcodes that were left out as duplicates.
    """
    tables = read_barcodes(methylation_path, methylation), read_barcodes(expression_path, expression)
    both = set(zip(tables[0]["id"], tables[0]["vial"], strict=True)) & set(
        zip(tables[1]["id"], tables[1]["vial"], strict=True)
    )
    chosen, duplicates = [], []
    for path, table in zip((methylation_path, expression_path), tables, strict=True):
        alone = [pair not in both for pair in zip(table["id"], table["vial"], strict=True)]
        ranked = table.assign(alone=alone).sort_values(["alone", "barcode"])
        left_out = ranked[ranked["id"].duplicated()].sort_index()
        if len(left_out):
            shown = ", ".join(left_out["barcode"].head(3)) + (", …" if len(left_out) > 3 else "")
            log.info(f"{path}: {len(left_out):,} further columns of the same patient and tissue left out: {shown}")
        duplicates += left_out["barcode"].tolist()
        chosen.append(ranked.drop_duplicates("id").sort_index().set_index("id")["column"])
    ids = [name for name in chosen[0].index if name in chosen[1].index]
    if not ids:
        raise InputError(
            f"{expression_path}: has no sample of {methylation_path} ({methylation[0]}, …); match the barcodes"
        )
    return Pairs(ids, chosen[0][ids].tolist(), chosen[1][ids].tolist()), duplicates


def sample_table(ids: list[str], cohort: str) -> pd.DataFrame:
    """Make the sample table; an id that is no barcode is its own patient, its tissue ``unknown``."""
    parts = pd.Series(ids).str.extract(BARCODE)
    patient = parts["patient"].fillna(pd.Series(ids))
    tissue_type = [TISSUE_TYPES.get(code, code) for code in parts["tissue"].fillna("unknown")]
    return pd.DataFrame({"id": ids, "patient": patient, "cohort": cohort, "tissue_type": tissue_type})
