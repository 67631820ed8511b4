"""TCGA barcodes: which columns of two tables are one sample.

A barcode names the patient (12 characters), the tissue (15), the vial (16) and what was made of it (28). A sample is a
patient and a tissue; 12 characters stand for the primary tumour.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from methyl_lightning.files import InputError
from methyl_lightning.readers.expression import open_expression
from methyl_lightning.readers.formats import BARCODE, is_barcode, open_matrix
from methyl_lightning.readers.genes import without_version
from methyl_lightning.readers.matrices import Matrix
from methyl_lightning.readers.text import refuse_repeats
from methyl_lightning.readers.units import StoredUnits, recognise_stored, to_log2

log = logging.getLogger(__name__)
PRIMARY = "01"
TISSUE_TYPES = {PRIMARY: "Primary Tumor", "06": "Metastatic", "11": "Solid Tissue Normal"}


class Pairs(NamedTuple):
    """Samples that two tables share: ids, and the names of their columns in the one and the other table."""

    ids: list[str]
    in_methylation: list[str]
    in_expression: list[str]


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
            f"{expression_path}: has no sample of {methylation_path} ({expression[0]}, … here, {methylation[0]}, … "
            "there); match the barcodes"
        )
    log.info(
        f"samples: {len(ids):,} in both, {len(methylation):,} with methylation, {len(expression):,} with expression"
    )
    return Pairs(ids, chosen[0][ids].tolist(), chosen[1][ids].tolist()), duplicates


def sample_table(ids: list[str], cohort: str) -> pd.DataFrame:
    """Make the sample table; an id that is no barcode is its own patient, its tissue ``unknown``."""
    parts = pd.Series(ids).str.extract(BARCODE)
    patient = parts["patient"].fillna(pd.Series(ids))
    tissue_type = [TISSUE_TYPES.get(code, code) for code in parts["tissue"].fillna("unknown")]
    return pd.DataFrame({"id": ids, "patient": patient, "cohort": cohort, "tissue_type": tissue_type})


class Cohort(NamedTuple):
    """The files of one cohort."""

    name: str
    methylation: Path
    expression: Path
    probe_map: Path
    sequences: Path | None
    assembly: str

    def files(self) -> list[Path]:
        """List the files."""
        return [path for path in (self.methylation, self.expression, self.probe_map, self.sequences) if path]


class Paired(NamedTuple):
    """A cohort of which the samples are known and the expression is read.

    Attributes
    ----------
    cohort
        Its files.
    methylation
        Opened, not yet read.
    pairs, duplicates
        See :func:`methyl_lightning.prepare.samples.pair_samples`.
    expression_GS
        float32, genes × the paired samples, rows named without the version of an Ensembl id.
    genes
        Names of the rows as they stand in the file.
    units
        Of the file, and of ``expression_GS``.
    """

    cohort: Cohort
    methylation: Matrix
    pairs: Pairs
    duplicates: list[str]
    expression_GS: pd.DataFrame
    genes: dict[str, str]
    units: StoredUnits


def list_cohorts(given: Mapping[str, Mapping[str, str]], shared: dict[str, Any]) -> list[Cohort]:
    """Take what each cohort names, and else what is given for all."""
    found: list[Cohort] = []
    for name, own in given.items():
        place = f"data.source.cohorts.{name}"
        for key in own:
            if key not in shared:
                raise InputError(f"{place}: no setting {key!r}; it may have {', '.join(shared)}")
        values = shared | dict(own)
        for key in ("methylation", "expression", "probe_map"):
            if values[key] is None:
                raise InputError(f"data.source.{key}: not given (nor {place}.{key}); name the file")
        files = {key: value and Path(value) for key, value in values.items() if key != "assembly"}
        found.append(Cohort(name=name, assembly=values["assembly"], **files))
        if found[-1].assembly != found[0].assembly:
            both = f"{found[0].name} is on {found[0].assembly}, {name} on {found[-1].assembly}"
            raise InputError(f"data.source.cohorts: {both}; give both on one assembly")
    return found


def pair(cohort: Cohort, units: str) -> Paired:
    """Match the samples of a cohort's two tables and read its expression, which is told to be in some units."""
    methylation = open_matrix(cohort.methylation, "probe", missing=True)
    with open_expression(cohort.expression, None, False, (), cohort.assembly) as expression:
        names = expression.obs.index.astype(str)
        pairs, duplicates = pair_samples(cohort.methylation, methylation.columns, cohort.expression, names.tolist())
        stored = recognise_stored(expression, units)
        log.info(f"{cohort.expression}: {stored.units} ({stored.reason}), stored as {stored.stored}")
        for note in expression.notes:
            log.info(f"{cohort.expression}: {note}")
        keys = [without_version(name) for name in expression.var.index]
        genes = dict(zip(keys, expression.var.index, strict=True))
        if len(genes) < len(keys):
            repeated = next(key for key, again in zip(keys, pd.Index(keys).duplicated(), strict=True) if again)
            raise InputError(f"{cohort.expression}: gene {repeated!r} occurs in two versions; keep one of them")
        row_S = names.get_indexer(pd.Index(pairs.in_expression))
        ascending_S, place_S = np.unique(row_S, return_inverse=True)
        block_SG = expression.rows(ascending_S)
    block_SG = block_SG.toarray() if sparse.issparse(block_SG) else block_SG
    values_SG = to_log2(block_SG, stored.units)[place_S].astype(np.float32)
    table = pd.DataFrame(values_SG.T, keys, pairs.in_expression)
    return Paired(cohort, methylation, pairs, duplicates, table, genes, stored)


def refuse_shared_samples(cohorts: list[Paired]) -> None:
    """Refuse a sample that two cohorts have."""
    seen: dict[str, str] = {}
    for one in cohorts:
        for name in one.pairs.ids:
            if name in seen:
                where = f"{seen[name]} and {one.cohort.name}"
                raise InputError(f"{one.cohort.methylation}: sample {name!r} is in {where}; take it out of one of them")
            seen[name] = one.cohort.name


def common_units(cohorts: list[Paired]) -> str:
    """Name the units in which all cohorts are stored."""
    first = cohorts[0]
    for other in cohorts[1:]:
        if other.units.stored != first.units.stored:
            both = f"{other.units.units}, stored as {other.units.stored}, {first.cohort.expression} {first.units.units}"
            raise InputError(f"{other.cohort.expression}: is in {both}; give both in the same units")
    return first.units.stored


def common_genes(cohorts: list[Paired]) -> list[str]:
    """Name the genes that every cohort has, in the order of the first."""
    common = cohorts[0].expression_GS.index
    for one in cohorts[1:]:
        common = common[common.isin(one.expression_GS.index)]
    if not len(common):
        first, other = cohorts[0].cohort, cohorts[1].cohort
        raise InputError(f"{other.expression}: has no gene of {first.expression}; use tables with the same names")
    for one in cohorts:
        if len(common) < len(one.expression_GS):
            log.info(
                f"{one.cohort.expression}: {len(common):,} of {len(one.expression_GS):,} genes are in every cohort"
            )
    return common.tolist()
