"""What a store holds, read block by block: shapes, missing shares, ranges, checksums, and where it came from.

Legend: C CpGs, S samples, G genes, L bases, B bins, N (CpG, gene) entries.
"""

from typing import Any, NamedTuple

import h5py
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from methyl_lightning.data.checks import REMEDY, dataset_digest
from methyl_lightning.data.distances import nearest_gene
from methyl_lightning.data.rows import row_blocks
from methyl_lightning.data.store import ALPHABET, BETA_MISSING, BETA_STEP, UNKNOWN_POSITION, Store
from methyl_lightning.files import InputError

N_BINS = 100
N_STEPS = round(1 / BETA_STEP) + 1
MATRICES = ("beta", "cpgs/sequence", "expression")


class Contents(NamedTuple):
    """Counts over a whole store.

    Attributes
    ----------
    beta_counts
        Cohort → int64 [B], cells in equal bins of 0…1.
    missing_C, missing_S
        Share of the cells without a value, by CpG and by sample.
    beta_range
        Lowest and highest value.
    base_counts
        int64 [A], bases of all windows.
    off_cg
        Number of windows with known bases other than CG in the centre.
    nearest_bp_C
        Signed distance of the nearest gene, of the CpGs that have one.
    checksums
        Name of a matrix → SHA-256 of its bytes, as recorded and found again.
    """

    beta_counts: dict[str, np.ndarray]
    missing_C: np.ndarray
    missing_S: np.ndarray
    beta_range: tuple[float, float]
    base_counts: np.ndarray
    off_cg: int
    nearest_bp_C: np.ndarray
    checksums: dict[str, str]


def read_contents(store: Store) -> Contents:
    """Read a whole store and check it.

    Raises
    ------
    InputError
        If a matrix is not what was written, or a value is out of its range.
    """
    with h5py.File(store.path, "r") as file:  # a map would keep every page
        checksums = {name: _verified(store, file[name]) for name in MATRICES}
        beta_counts, missing_C, missing_S, beta_range = _read_beta(store, file["beta"])
        base_counts, off_cg = _read_sequences(store, file["cpgs/sequence"])
    if not np.isfinite(store.expression_SG).all():
        raise InputError(f"{store.path}: an expression value is not a finite number; {REMEDY}")
    gene_C, bp_C = nearest_gene(store.distances)
    nearest_bp_C = bp_C[gene_C >= 0]
    return Contents(beta_counts, missing_C, missing_S, beta_range, base_counts, off_cg, nearest_bp_C, checksums)


def _verified(store: Store, dataset: h5py.Dataset) -> str:
    """Compute the checksum of a matrix and compare it with the recorded one."""
    digest = dataset_digest(dataset)
    if dataset.attrs.get("sha256", digest) != digest:
        name = dataset.name.removeprefix("/")
        raise InputError(f"{store.path}: {name} is damaged, its checksum is another; {REMEDY}")
    return digest


def _read_beta(
    store: Store, dataset: h5py.Dataset
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, tuple[float, float]]:
    """Count the values of each cohort in bins, the missing cells by CpG and by sample, and find the range."""
    cohort_S = store.samples["cohort"].to_numpy()
    n_cpgs, n_samples = dataset.shape
    step_counts = {cohort: np.zeros(BETA_MISSING + 1, np.int64) for cohort in pd.unique(cohort_S)}
    missing_C, missing_S = np.zeros(n_cpgs, np.int64), np.zeros(n_samples, np.int64)
    for rows in row_blocks(n_cpgs, 8 * n_samples):
        block_CS = dataset[rows]
        for cohort, counts in step_counts.items():
            counts += np.bincount(block_CS[:, cohort_S == cohort].ravel(), minlength=len(counts))
        is_missing_CS = block_CS == BETA_MISSING
        missing_C[rows] = is_missing_CS.sum(axis=1)
        missing_S += is_missing_CS.sum(axis=0)
    measured = np.flatnonzero(np.sum(list(step_counts.values()), axis=0)[:BETA_MISSING])
    if len(measured) and measured[-1] >= N_STEPS:
        raise InputError(f"{store.path}: beta up to {measured[-1] * BETA_STEP:g}, outside 0…1; {REMEDY}")
    beta_range = (measured[0] * BETA_STEP, measured[-1] * BETA_STEP) if len(measured) else (np.nan, np.nan)
    binned = {cohort: _binned(counts) for cohort, counts in step_counts.items()}
    return binned, missing_C / n_samples, missing_S / n_cpgs, beta_range


def _read_sequences(store: Store, dataset: h5py.Dataset) -> tuple[np.ndarray, int]:
    """Count the bases, and the windows with other known bases than CG in the centre."""
    base_counts, off_cg = np.zeros(256, np.int64), 0
    n_cpgs, window = dataset.shape
    unknown, cg = ALPHABET.index("N"), [ALPHABET.index("C"), ALPHABET.index("G")]
    for rows in row_blocks(n_cpgs, 8 * window):
        block_CL = dataset[rows]
        base_counts += np.bincount(block_CL.ravel(), minlength=len(base_counts))
        centre_C2 = block_CL[:, window // 2 - 1 : window // 2 + 1]
        off_cg += int(((centre_C2 != unknown).all(axis=1) & (centre_C2 != cg).any(axis=1)).sum())
    if base_counts[len(ALPHABET) :].any():
        raise InputError(f"{store.path}: a sequence holds a letter other than {', '.join(ALPHABET)}; {REMEDY}")
    return base_counts[: len(ALPHABET)], off_cg


def _binned(step_counts: np.ndarray) -> np.ndarray:
    """Sum the counts of steps in equal bins; the step of 1 belongs to the last."""
    bin_of = np.minimum(np.arange(N_STEPS) * N_BINS // (N_STEPS - 1), N_BINS - 1)
    return np.bincount(bin_of, step_counts[:N_STEPS], N_BINS).astype(np.int64)


def describe(store: Store, contents: Contents) -> str:
    """Say in lines of text what a store holds and where it came from."""
    cpgs, genes, samples = store.cpgs, store.genes, store.samples
    placed = int((cpgs["position"] != UNKNOWN_POSITION).sum())
    n_bases = contents.base_counts.sum()
    low, high = contents.beta_range
    low_g, high_g = float(store.expression_SG.min()), float(store.expression_SG.max())
    nearest = np.abs(contents.nearest_bp_C)
    groups = samples.groupby(["cohort", "tissue_type"], sort=False).size()
    islands = cpgs["island"].replace("", "unknown").value_counts()
    lines = [
        f"{store.path}: {store.path.stat().st_size / 1e6:,.1f} MB, assembly {store.attributes['assembly']}",
        f"CpGs         {len(cpgs):,}, {placed:,} with a position; {_listed(islands)}",
        f"samples      {len(samples):,} of {samples['patient'].nunique():,} patients; {_listed(groups)}",
        f"genes        {len(genes):,}, {int((genes['start'] != UNKNOWN_POSITION).sum()):,} with coordinates",
        f"beta         {low:.4f} to {high:.4f}; {contents.missing_C.mean():.2%} missing, "
        f"at most {contents.missing_C.max():.0%} of a CpG and {contents.missing_S.max():.0%} of a sample",
        f"expression   {low_g:.4g} to {high_g:.4g}, {store.attributes['units']}",
        f"sequences    window {store.window}, {contents.base_counts[-1] / n_bases:.2%} N; "
        f"{contents.off_cg:,} with other bases than CG in the centre",
        f"distances    {len(store.distances.bp_N):,}; {len(nearest):,} CpGs have a gene"
        + (f", the nearest at {np.median(nearest):,.0f} bp (median)" if len(nearest) else ""),
    ]
    lines += [f"sha256       {checksum} {name}" for name, checksum in contents.checksums.items()]
    return "\n".join([*lines, *_origin(store.attributes["provenance"])])


def _listed(counts: pd.Series) -> str:
    names = (" ".join(name) if isinstance(name, tuple) else str(name) for name in counts.index)
    return ", ".join(f"{name} {count:,}" for name, count in zip(names, counts, strict=True))


def _origin(provenance: dict[str, Any]) -> list[str]:
    lines = [f"source       {provenance['source']}"]
    lines += [f"  {name}={value}" for name, value in provenance["settings"].items() if value is not None]
    for file in provenance.get("inputs", []):
        lines.append(f"input        {file['sha256']} {file['file']} ({file['bytes']:,} bytes)")
    for one in provenance.get("filters", []):
        lines.append(f"filter       {one['filter']}: kept {one['kept']:,}, dropped {one['dropped']:,}")
    for one in provenance.get("cohorts", []):
        lines.append(
            f"cohort       {one['name']}: {one['cpgs']:,} CpGs, {one['samples']:,} samples, {one['genes']:,} genes, "
            f"{len(one['duplicates_left_out']):,} duplicates left out"
        )
    for name, one in provenance.get("expression", {}).items():
        lines.append(f"units        {name}: {one['units']} ({one['reason']}), stored as {one['stored']}")
    if provenance.get("sequences"):
        lines.append(
            "centres      " + ", ".join(f"{name} {count:,}" for name, count in provenance["sequences"].items())
        )
    return lines


SIZE = (9.0, 6.6)


def store_page(store: Store, contents: Contents) -> Figure:
    """Draw the distributions of beta, expression and nearest gene, and how much is missing.

    Parameters
    ----------
    store
        For the expression and the title.
    contents
        Of :func:`methyl_lightning.prepare.check.read_contents`.
    """
    figure = Figure(figsize=SIZE, layout="constrained")
    (beta, expression), (distance, missing) = figure.subplots(2, 2)
    edges = np.linspace(0, 1, N_BINS + 1)
    for cohort, count_B in contents.beta_counts.items():
        beta.stairs(count_B / max(count_B.sum(), 1) * N_BINS, edges, label=cohort, linewidth=1.3)
    beta.set(xlabel="beta", ylabel="density", xlim=(0, 1))
    beta.legend(frameon=False)
    expression.hist(np.asarray(store.expression_SG).ravel(), bins=100, color="0.5")
    expression.set(xlabel=f"expression, {store.attributes['units']}", ylabel="values", yscale="log")
    _draw_distances(distance, contents.nearest_bp_C)
    for name, share in (("CpG", contents.missing_C), ("sample", contents.missing_S)):
        missing.plot(np.linspace(0, 1, len(share)), np.sort(share), label=f"of a {name}", linewidth=1.3)
    missing.set(xlabel="share of CpGs, of samples", ylabel="share missing", xlim=(0, 1), ylim=(0, None))
    missing.legend(frameon=False)
    sns.despine(figure)
    shape = f"{len(store.cpgs):,} CpGs × {len(store.samples):,} samples, {len(store.genes):,} genes"
    figure.suptitle(f"{store.path.name}: {shape}, {store.attributes['assembly']}", fontsize="medium")
    return figure


def _draw_distances(axes: Axes, nearest_bp_C: np.ndarray) -> None:
    axes.hist(nearest_bp_C / 1000, bins=100, color="0.5")
    axes.axvline(0, color="C3", linewidth=0.8)
    axes.set(xlabel="nearest gene − CpG (kb)", ylabel="CpGs", yscale="log")
    if not len(nearest_bp_C):
        axes.text(0.5, 0.5, "no gene near any CpG", ha="center", va="center", transform=axes.transAxes)
