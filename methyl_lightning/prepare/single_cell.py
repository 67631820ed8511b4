"""Single cells of which methylation and expression were measured, as two files → store.

Legend: C CpGs, S cells, G genes.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from methyl_lightning.data.distances import gene_distances
from methyl_lightning.data.store import GENE_COLUMNS, UNKNOWN_POSITION, write_store
from methyl_lightning.files import InputError
from methyl_lightning.prepare.provenance import provenance
from methyl_lightning.prepare.selection import Selection, by_annotation, by_values, count_table
from methyl_lightning.prepare.windows import open_windows
from methyl_lightning.readers.annotation import annotate
from methyl_lightning.readers.calls import Calls, read_calls
from methyl_lightning.readers.cpgs import columns_of
from methyl_lightning.readers.expression import open_expression
from methyl_lightning.readers.genes import locate_genes
from methyl_lightning.readers.probes import chromosome
from methyl_lightning.readers.units import StoredUnits, recognise_stored, to_log2

log = logging.getLogger(__name__)


class _Cells(NamedTuple):
    """Expression of the cells that both files have: names, what the file says of them, its genes, values, units."""

    names: pd.Index
    obs: pd.DataFrame
    var: pd.DataFrame
    expression_SG: np.ndarray
    units: StoredUnits


def single_cell(
    store: str | Path,
    *,
    methylation: str | Path,
    expression: str | Path,
    genes: str | Path | None = None,
    genome: str | Path | None = None,
    selection: Mapping[str, Any] | None = None,
    window: int = 122,
    cohort: str = "single_cell",
    assembly: str = "mm10",
    position_base: int = 0,
    patient: str | None = None,
    tissue_type: str | None = None,
    anchor: str = "tss",
    limit_bp: int = 100_000,
    units: str = "log2(norm+1)",
) -> None:
    """Write the store of cells with calls of methylation and expression; a cell is a sample.

    Cells are those that both files have, by name, in the order of the methylation.

    Parameters
    ----------
    store
        File to write; nothing is written if an input is refused.
    methylation
        ``.h5ad`` of cells × CpGs, or a folder of Bismark's coverage files
        (:func:`methyl_lightning.readers.calls.read_calls`).
    expression
        ``.h5ad`` of the same cells, or any other format of :func:`methyl_lightning.readers.expression.open_expression`.
    genes
        Where genes lie (default: columns such as chr, start, end and strand of the expression's var, 0-based).
    genome, window
        FASTA of the assembly, of which ``window`` bases around each CpG are kept; without it only N. With it the two
        strands of a CpG, which Bismark calls apart, are taken together.
    selection
        Settings of :class:`methyl_lightning.prepare.selection.Selection`: which CpGs are kept.
    position_base
        Position of the first base in the methylation's var: 0 or 1.
    patient, tissue_type
        Columns of either obs: the donor or embryo of a cell, which splits do not tear apart (default: each cell is its
        own), and a word for it, such as its culture.
    cohort, assembly, anchor, limit_bp
        Kept in the store; the last two are those of :func:`methyl_lightning.data.distances.gene_distances`.
    units
        What the expression is told to be; see :func:`methyl_lightning.readers.units.recognise_stored`.

    Raises
    ------
    InputError
        If an input is missing, damaged or contradicts another.
    """
    settings = json.loads(json.dumps({k: v for k, v in locals().items() if k != "store"}, default=str))
    if window < 2 or window % 2 or position_base not in (0, 1):
        raise InputError(f"window={window} must be even and positive, position_base={position_base} must be 0 or 1")
    chosen = Selection(**(selection or {}))
    source = Path(methylation)
    genome = None if genome is None else Path(genome)
    calls = read_calls(source, position_base, chosen.min_measured, genome)
    cells = _read_cells(Path(expression), calls, units, assembly)
    gene_table = _gene_table(Path(expression), cells.var, None if genes is None else Path(genes), assembly)
    row_S = calls.obs.index.get_indexer(cells.names)
    beta_CS, reads_CS = calls.beta_CS[:, row_S], None if calls.reads_CS is None else calls.reads_CS[:, row_S]
    cpgs = calls.cpgs.assign(strand="")
    with ExitStack() as stack:
        placed = {source: np.ones(len(cpgs), dtype=bool)}
        windows = open_windows(stack, cpgs, window, genome, placed, {}, position_base, "C")
        annotation_CP = annotate(cpgs, None, windows.genome)
        distances = gene_distances(cpgs, gene_table, limit_bp, anchor)
        keep_C, filters = by_annotation(chosen, cpgs, distances, limit_bp, windows.off_cg_C)
        share_C = np.mean(~np.isnan(beta_CS), axis=1)
        keep_C, more_filters = by_values(chosen, share_C, keep_C)
        filters += more_filters
        log.info(count_table(filters))
        kept_C = np.flatnonzero(keep_C)
        inputs = [path for path in (source, Path(expression), genome) if path is not None]
        files = [file for path in inputs for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        missing_share = 1 - float(share_C[kept_C].mean())
        record = provenance("single_cell", settings, files, gene_table, (len(kept_C), len(row_S)), missing_share)
        write_store(
            store,
            cpgs=cpgs.iloc[kept_C],
            sequence_CL=windows.read(kept_C),
            genes=gene_table,
            samples=_samples(cells, calls, cohort, patient, tissue_type),
            distances=distances.rows(kept_C),
            expression_SG=cells.expression_SG,
            annotation_CP=annotation_CP[kept_C],
            beta_CS=beta_CS[kept_C],
            reads_CS=None if reads_CS is None else reads_CS[kept_C],
            units=cells.units.stored,
            assembly=assembly,
            provenance=record
            | {
                "filters": [count._asdict() for count in filters],
                "sequences": windows.counts,
                "expression": {cohort: cells.units._asdict()},
            },
        )


def _read_cells(path: Path, calls: Calls, units: str, assembly: str) -> _Cells:
    with open_expression(path, None, False, (), assembly) as opened:
        names = opened.obs.index.astype(str)
        both = calls.obs.index[calls.obs.index.isin(names)]
        if not len(both):
            has = f"{names[0]!r}, … here, {calls.obs.index[0]!r}, … there"
            raise InputError(f"{path}: has no cell of {calls.source} ({has}); give both the same names")
        log.info(f"cells: {len(both):,} in both, {len(calls.obs):,} with methylation, {len(names):,} with expression")
        stored = recognise_stored(opened, units)
        log.info(f"{path}: {stored.units} ({stored.reason}), stored as {stored.stored}")
        for note in opened.notes:
            log.info(f"{path}: {note}")
        ascending_S, place_S = np.unique(names.get_indexer(both), return_inverse=True)
        block_SG = opened.rows(ascending_S)
        block_SG = block_SG.toarray() if sparse.issparse(block_SG) else block_SG
        expression_SG = to_log2(block_SG, stored.units)[place_S].astype(np.float32)
        return _Cells(both, opened.obs.set_axis(names).loc[both], opened.var, expression_SG, stored)


def _gene_table(path: Path, var: pd.DataFrame, genes: Path | None, assembly: str) -> pd.DataFrame:
    """Take the places of genes from a file, or else from the table of the genes themselves."""
    names = var.index.astype(str).tolist()
    if genes is not None:
        return locate_genes(genes, names, assembly)
    columns = [str(name) for name in var]
    place = columns_of(columns)
    for name in ("chrom", "position", "end", "strand"):
        if name not in place:
            raise InputError(
                f"{path}: var has no column for the {name.replace('position', 'start')} of a gene among "
                f"{', '.join(columns) or 'none'}; add it, or name an annotation by data.source.genes"
            )
    texts = {name: var.iloc[:, k].astype(str) for name, k in place.items()}
    start_G, end_G = (
        pd.to_numeric(texts[name], errors="coerce").fillna(UNKNOWN_POSITION).to_numpy(np.int64)
        for name in ("position", "end")
    )
    known_G = (start_G >= 0) & (end_G > start_G) & texts["strand"].isin(["+", "-"]).to_numpy()
    chroms = {name: chromosome(name) for name in texts["chrom"].unique()}
    table = pd.DataFrame(
        {
            "symbol": names,
            "id": names,
            "chrom": np.where(known_G, texts["chrom"].map(chroms), ""),
            "start": np.where(known_G, start_G, UNKNOWN_POSITION),
            "end": np.where(known_G, end_G, UNKNOWN_POSITION),
            "strand": np.where(known_G, texts["strand"], ""),
        }
    )
    log.info(f"{path}: gives the place of {int(known_G.sum()):,} of {len(names):,} genes")
    return table[list(GENE_COLUMNS)]


def _samples(cells: _Cells, calls: Calls, cohort: str, patient: str | None, tissue_type: str | None) -> pd.DataFrame:
    """Make the sample table of the cells."""

    def column(name: str, setting: str) -> np.ndarray:
        for obs in (cells.obs, calls.obs.loc[cells.names]):
            if name in obs:
                return obs[name].astype(str).to_numpy()
        known = ", ".join(map(str, [*cells.obs, *calls.obs])) or "none"
        raise InputError(f"data.source.{setting}={name}: no such column of obs among {known}; name one of them")

    return pd.DataFrame(
        {
            "id": cells.names,
            "patient": cells.names if patient is None else column(patient, "patient"),
            "cohort": cohort,
            "tissue_type": "unknown" if tissue_type is None else column(tissue_type, "tissue_type"),
        }
    )
