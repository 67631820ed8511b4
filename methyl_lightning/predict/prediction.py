"""From a checkpoint, expression and CpGs to methylation: each CpG and each sample is encoded once, block by block.

Legend: C CpGs, S samples (rows that are predicted), G genes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
import torch

from methyl_lightning.data.datamodule import chunks
from methyl_lightning.data.distances import within
from methyl_lightning.data.store import UNKNOWN_POSITION
from methyl_lightning.files import InputError
from methyl_lightning.model.card import calibration_of, calibrations_by_depth, coverage_line, depth_line
from methyl_lightning.model.checkpoint import load_checkpoint, on_fastest_device
from methyl_lightning.model.conformal import Calibration, interval_by_depth
from methyl_lightning.model.grid import cpg_table, encode_cpgs, keep, predict_blocks
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.model.record import is_log2
from methyl_lightning.predict.aggregation import average_matrix, label_groups
from methyl_lightning.predict.cpgs import ALL, CpgSet, read_cpg_set
from methyl_lightning.predict.genes import index_genes, match_genes, read_aliases
from methyl_lightning.predict.scale import MATCHES, ExpressionRows, matched_totals
from methyl_lightning.readers.annotated import Expression
from methyl_lightning.readers.expression import open_expression
from methyl_lightning.readers.progress import shown
from methyl_lightning.readers.units import RecognisedUnits, recognise, refuse_units, row_slices

CPG_BLOCK, SAMPLE_BLOCK = 256, 1024  # CpGs and samples that are combined at once
CELLS_AT_ONCE = 1 << 24  # of a block of samples × all CpGs


class Prepared(NamedTuple):
    """All that is decided before the first cell is predicted.

    Attributes
    ----------
    module, cpgs, rows
        Network, CpGs and expression.
    obs, obsm, uns, var
        What the output says of samples and CpGs.
    calibrations
        For intervals, by molecules of a sample, of CpGs that were not trained on and of those that were; none where
        the checkpoint was never tested.
    notes
        What a person should know of the way from input to prediction, one line each.
    """

    module: MethylationModule
    cpgs: CpgSet
    rows: ExpressionRows
    obs: pd.DataFrame
    obsm: dict[str, Any]
    uns: dict[str, Any]
    var: pd.DataFrame
    calibrations: list[dict[float, Calibration]]
    notes: list[str]

    def bounds(self, rows: slice, beta_SC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lower and upper bounds of predicted rows, float32 [n, C]."""
        bounds = np.empty((2, *beta_SC.shape), dtype=np.float32)
        seen_C = self.cpgs.table["training_mean"].notna().to_numpy()
        for calibrations, of_C in zip(self.calibrations, (~seen_C, seen_C), strict=True):
            bounds[:, :, of_C] = interval_by_depth(calibrations, self.rows.depth_R[rows], beta_SC[:, of_C])
        return bounds[0], bounds[1]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Predict rows after rows: float32 [n, C] within 0…1, NaN for a row without any expression."""
        module, n_cpgs = self.module, len(self.cpgs.table)
        size = int(np.clip(CELLS_AT_ONCE // n_cpgs, 16, SAMPLE_BLOCK))
        encoded = encode_cpgs(module, self.cpgs, chunks(np.arange(n_cpgs), CPG_BLOCK))
        with shown("predicting", len(self.rows), "samples") as tell, keep(encoded) as cpgs:
            for rows in row_slices(len(self.rows), size):
                scaled_SG = module.scaler(torch.from_numpy(self.rows.read(rows)).to(module.device))
                beta_SC = np.empty((len(scaled_SG), n_cpgs), dtype=np.float32)
                for cpg_C, beta_CS in predict_blocks(module, cpgs, [scaled_SG]):
                    beta_SC[:, cpg_C] = beta_CS.clip(0, 1, out=beta_CS).T
                if np.isnan(beta_SC).any():
                    name = self.obs.index[rows.start + int(np.argmax(np.isnan(beta_SC).any(axis=1)))]
                    raise InputError(f"sample {name!r}: the network gives no number for it; its checkpoint is damaged")
                beta_SC[self.rows.empty_R[rows]] = np.nan
                yield rows, beta_SC
                tell(len(beta_SC))


@contextmanager
def prepared(
    checkpoint: str | Path,
    expression: anndata.AnnData | str | Path,
    cpgs: str | Path | Sequence[str] | pd.DataFrame = ALL,
    *,
    genome: str | Path | None = None,
    layer: str | None = None,
    raw: bool = False,
    genes: str | Path | None = None,
    units: str | None = None,
    match: str | None = None,
    min_coverage: float = 0.5,
    skip_empty: bool = False,
    aggregate: str = "none",
    label: str | None = None,
    k: int = 15,
) -> Iterator[Prepared]:
    """Read and check all inputs and match them to the training; parameters are those of :func:`predict`."""
    refuse_units(units)
    if match not in (None, *MATCHES):
        raise InputError(f"match={match}: must be one of {', '.join(MATCHES)}")
    module = on_fastest_device(load_checkpoint(checkpoint))
    record = module.training_record()
    if record is None:
        raise InputError(f"{checkpoint}: carries no training record; train again")
    cpg_set = read_cpg_set(module, cpgs, genome)
    aliases = None if genes is None else read_aliases(Path(genes))
    known = index_genes(record.genes, aliases)
    with open_expression(expression, layer, raw, known, module.provenance["assembly"]) as opened:
        if not len(opened.obs):
            raise InputError(f"{opened.source}: has no samples")
        matched = match_genes(opened.source, opened.var.index.astype(str).tolist(), opened.var, record.genes, known)
        said = (
            f"genes: {len(matched.gene_K):,} of the checkpoint's {matched.n_genes:,} ({matched.coverage:.1%}) are in "
            f"the input ({len(opened.var):,}); {matched.duplicates:,} names were added to another of the same gene"
        )
        if matched.coverage < min_coverage:
            remedy = "give more genes, aliases (genes=TABLE), or lower min_coverage"
            raise InputError(f"{opened.source}: {said}; below min_coverage={min_coverage:g}: {remedy}")
        recognised = RecognisedUnits(units, "as told") if units else recognise(opened)
        trained_units = module.provenance["units"]
        match, reason = _choose_match(match, opened.source, recognised, trained_units, record.score_SQ.size > 0)
        total_S = matched_totals(opened, matched, recognised.units)
        average_RS = average_matrix(opened, recognised.units, aggregate, label, k)
        rows = ExpressionRows(opened, matched, recognised.units, record, trained_units, match, average_RS, total_S)
        obs, obsm, uns = _described_samples(opened, aggregate, label)
        if rows.empty_R.any() and not skip_empty:
            n_empty, first = int(rows.empty_R.sum()), str(obs.index[int(np.argmax(rows.empty_R))])
            raise InputError(
                f"{opened.source}: {n_empty:,} of {len(rows):,} samples ({first!r}, …) have no molecule of a gene "
                "that the checkpoint knows; remove them, or set skip_empty=true, which predicts NaN for them"
            )
        by_depth = match == "depth" and bool(calibrations_by_depth(module))
        calibrations = [
            calibrations_by_depth(module, seen) if by_depth else {np.inf: calibration}
            for seen in (False, True)
            if (calibration := calibration_of(module, seen)) is not None
        ]
        notes = [
            *opened.notes,
            said,
            f"units: {recognised.units} ({recognised.reason}), brought to the training's "
            f"{trained_units} by match={match}{reason}",
            *cpg_set.notes,
            *_cpg_notes(module, cpg_set),
        ]
        if rows.empty_R.any():
            notes.append(f"samples: {int(rows.empty_R.sum()):,} have no expression of a matched gene: predicted as NaN")
        none = "no intervals: the checkpoint has not been tested"
        notes.append(none if not calibrations else depth_line(module.card) if by_depth else coverage_line(module.card))
        facts = {
            "versions": {name: version(name) for name in ("methyl_lightning", "torch", "anndata", "numpy")},
            "checkpoint": str(checkpoint),
            "network": str(module.hparams["network"]),
            "cohort": ", ".join(module.provenance["cohort"]),
            "assembly": module.provenance["assembly"],
            "expression": opened.source,
            "units": recognised.units,
            "match": match,
            "aggregate": aggregate,
            "gene_coverage": matched.coverage,
            "interval_level": max((one.level for of in calibrations for one in of.values()), default=0.0),
            "notes": notes,
        }
        var = cpg_table(cpg_set.table, record.genes, cpg_set.distances)
        yield Prepared(module, cpg_set, rows, obs, obsm, {"methyl_lightning": facts, **uns}, var, calibrations, notes)


def _choose_match(
    match: str | None, source: str, units: RecognisedUnits, trained_units: str, has_samples: bool
) -> tuple[str, str]:
    """Choose how samples come to the training's scale, and say why where nobody asked for it."""
    unknown = f"values in {units.units} ({units.reason}) do not tell how many molecules a sample has"
    if match == "depth" and units.units != "counts":
        raise InputError(f"{source}: match=depth: {unknown}; give counts (layer=, raw=true), or match=quantile")
    if match == "depth" and not has_samples:
        raise InputError(
            f"{source}: match=depth: the checkpoint keeps no samples to thin; train again or match=quantile"
        )
    if match is not None:
        return match, ""
    if units.units == "counts" and not has_samples:
        return "quantile", ": the checkpoint, of an older version, keeps no samples to thin"
    if units.units != "counts":
        return "quantile", f": {unknown}, so their depth is not looked at"
    return ("depth", "") if is_log2(trained_units) else ("quantile", ": the training's units are not log2(x+1)")


def _cpg_notes(module: MethylationModule, cpgs: CpgSet) -> list[str]:
    n_cpgs, reach = len(cpgs.table), module.network.gene_within_bp
    unplaced = int((cpgs.table["position"] == UNKNOWN_POSITION).sum())
    trained = int(cpgs.table["training_mean"].notna().sum())
    notes = [f"CpGs: {n_cpgs:,}, of which {trained:,} were trained on"]
    if unplaced:
        notes.append(f"CpGs: {unplaced:,} of {n_cpgs:,} have no position in the training's assembly")
    if reach is not None and not (near_C := within(cpgs.distances, reach)).all():
        far = int((~near_C).sum())
        notes.append(f"CpGs: {far:,} of {n_cpgs:,} have no gene within {reach:,} bp, where the network is not defined")
    return notes


def _described_samples(
    expression: Expression, aggregate: str, label: str | None
) -> tuple[pd.DataFrame, dict[str, Any], dict[str, Any]]:
    """Carry over obs, obsm, and of uns the image of a section and the colours of columns."""
    if aggregate == "label":
        groups = label_groups(expression, label)
        counts = np.bincount(groups.codes[groups.codes >= 0], minlength=len(groups.categories))
        return pd.DataFrame({"n_samples": counts}, index=groups.categories.astype(str)), {}, {}
    obs = expression.obs.copy()
    obs.index = pd.Index(obs.index.astype(str), name=None)
    obsm = {name: value for name, value in expression.obsm.items() if getattr(value, "ndim", 0) == 2}
    uns = {
        name: value
        for name, value in expression.uns.items()
        if name == "spatial" or (name.removesuffix("_colors") in obs.columns and name.endswith("_colors"))
    }
    return obs, obsm, uns


def predict(
    checkpoint: str | Path,
    adata: anndata.AnnData | str | Path,
    cpgs: str | Path | Sequence[str] | pd.DataFrame = ALL,
    *,
    intervals: bool = True,
    **settings: Any,
) -> anndata.AnnData:
    """Predict methylation of samples, cells or spots from their expression.

    Parameters
    ----------
    checkpoint
        ``best.ckpt`` of a run, or a folder made by ``export=``.
    adata
        AnnData, or a path: ``.h5ad``, 10x ``.h5`` or folder, ``.tsv``, ``.csv``, ``.parquet`` (genes on either axis).
    cpgs
        ``all`` of the training store (default); probe ids of it, as a list or a file; positions, as a data frame
        (chrom, position, perhaps id), a BED or a TSV file, with ``genome``; a FASTA of windows; another store.
    intervals
        Add the layers ``lower`` and ``upper``.
    genome
        FASTA of the checkpoint's assembly, for positions.
    layer, raw
        Take a layer, or ``.raw``, instead of X.
    genes
        Gene table (TSV) whose columns symbol, ensembl, … name one gene a row: aliases.
    units
        ``counts``, ``cpm`` (linear), ``log1p`` or ``log2`` (of x + 1); None recognises them.
    match
        How a sample is brought to the training's scale: ``depth`` (counts: estimated from training samples that are as
        thin, :mod:`methyl_lightning.model.depth`), ``quantile`` (by rank), ``library`` (by its total over matched
        genes), or ``none`` for values that are on it already. None: depth for counts, quantile for all others.
    min_coverage
        Least share of the checkpoint's genes that must be matched.
    skip_empty
        Predict NaN for samples without expression of any matched gene, which are refused otherwise.
    aggregate
        ``none``; ``label``: one row for each value of the obs column ``label``; ``spatial``, ``expression``: each
        sample averaged with its ``k`` nearest neighbours, in ``obsm["spatial"]`` or by 30 expression components.
    label, k
        See ``aggregate``.

    Returns
    -------
    anndata.AnnData
        obs, obsm and section images of the input; var: chrom, position, island, nearest_gene, nearest_bp,
        training_mean, training_deviation; X predicted beta, float32 within 0…1 (NaN for a sample without expression
        of any matched gene); layers lower and upper; ``uns["methyl_lightning"]`` says how it was made.

    Raises
    ------
    InputError
        If an input is missing, damaged, or does not fit the checkpoint.
    """
    with prepared(checkpoint, adata, cpgs, **settings) as ready:
        data = anndata.AnnData(
            X=np.empty((len(ready.obs), len(ready.var)), dtype=np.float32),
            obs=ready.obs,
            var=ready.var,
            obsm=ready.obsm,
            uns=ready.uns,
        )
        for rows, beta_SC in ready.blocks():
            data.X[rows] = beta_SC
        if intervals and ready.calibrations:
            data.layers["lower"], data.layers["upper"] = ready.bounds(slice(None), data.X)
    return data
