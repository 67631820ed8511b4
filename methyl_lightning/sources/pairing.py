"""The cohorts of a store: their files, and the samples and genes that these share.

Legend: G genes, S samples.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from methyl_lightning.sources.barcodes import Pairs, pair_samples
from methyl_lightning.sources.formats import open_matrix
from methyl_lightning.sources.genes import without_version
from methyl_lightning.sources.matrices import Matrix, read_all
from methyl_lightning.store import InputError

log = logging.getLogger(__name__)


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
        See :func:`methyl_lightning.sources.barcodes.pair_samples`.
    expression_GS
        float32, genes × the paired samples, rows named without the version of an Ensembl id.
    genes
        Names of the rows as they stand in the file.
    """

    cohort: Cohort
    methylation: Matrix
    pairs: Pairs
    duplicates: list[str]
    expression_GS: pd.DataFrame
    genes: dict[str, str]


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


def pair(cohort: Cohort) -> Paired:
    """Match the samples of a cohort's two tables and read its expression."""
    methylation = open_matrix(cohort.methylation, "probe", missing=True)
    expression = open_matrix(cohort.expression, "gene")
    pairs, duplicates = pair_samples(cohort.methylation, methylation.columns, cohort.expression, expression.columns)
    table = read_all(expression)[pairs.in_expression]
    keys = [without_version(name) for name in table.index]
    genes = dict(zip(keys, table.index, strict=True))
    if len(genes) < len(keys):
        repeated = next(key for key, again in zip(keys, pd.Index(keys).duplicated(), strict=True) if again)
        raise InputError(f"{cohort.expression}: gene {repeated!r} occurs in two versions; keep one of them")
    return Paired(cohort, methylation, pairs, duplicates, table.set_axis(keys), genes)


def refuse_shared_samples(cohorts: list[Paired]) -> None:
    """Refuse a sample that two cohorts have."""
    seen: dict[str, str] = {}
    for one in cohorts:
        for name in one.pairs.ids:
            if name in seen:
                where = f"{seen[name]} and {one.cohort.name}"
                raise InputError(f"{one.cohort.methylation}: sample {name!r} is in {where}; take it out of one of them")
            seen[name] = one.cohort.name


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
