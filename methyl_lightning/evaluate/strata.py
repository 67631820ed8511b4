"""Metrics of parts of a grid: CpGs near genes or far, in islands or not, variable or not, and each cohort by itself.

Within one cohort, telling tissues apart does not count as skill. Axis letters: C CpGs, S samples.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.metrics.bootstrap import LARGE, bootstrap_grid, grid_values, interval, some_rows

TSS_BP = (2_000, 10_000, 20_000)
TSS_GROUPS = ("0-2 kb", "2-10 kb", "10-20 kb", "> 20 kb")
VARIANCE_GROUPS = ("low", "middle", "high")
N_RESAMPLES = 200
COLUMNS = ("by", "group", "n_cpgs", "n_samples", "n_cells", "metric", "value", "low", "high")


class Stratum(NamedTuple):
    """Some rows and columns of a grid (sorted numbers), and what they have in common."""

    by: str
    group: str
    cpg_C: np.ndarray
    sample_S: np.ndarray


def strata(tss_bp_C: np.ndarray, island_C: np.ndarray, variance_C: np.ndarray, cohort_S: np.ndarray) -> list[Stratum]:
    """Divide a grid by each property of its CpGs, and by cohort; groups without a CpG or sample are left out.

    Parameters
    ----------
    tss_bp_C
        Signed distance to the nearest gene, NaN where none is listed, which counts as farther than 20 kb. A bound
        belongs to the nearer group.
    island_C
        str, relation to a CpG island, north and south (``N_Shore``, ``S_Shore``) taken together; "" is unknown, and
        where all are there are no such groups.
    variance_C
        Variance of each CpG, best over training samples; terciles of those that have one make three groups.
    cohort_S
        str, the cohort of each sample.
    """
    all_C, all_S = np.arange(len(tss_bp_C)), np.arange(len(cohort_S))
    near_C = np.digitize(np.nan_to_num(np.abs(tss_bp_C), nan=np.inf), TSS_BP, right=True)
    found = [Stratum("tss_distance", name, all_C[near_C == i], all_S) for i, name in enumerate(TSS_GROUPS)]
    if (island_C != "").any():
        relation_C = np.array([str(name).removeprefix("N_").removeprefix("S_") for name in island_C])
        for name in np.unique(relation_C):
            found.append(Stratum("island", str(name) or "unknown", all_C[relation_C == name], all_S))
    known_C = ~np.isnan(variance_C)
    if known_C.any():
        tercile_C = np.digitize(variance_C, np.quantile(variance_C[known_C], [1 / 3, 2 / 3]), right=True)
        for i, name in enumerate(VARIANCE_GROUPS):
            found.append(Stratum("variance", name, all_C[known_C & (tercile_C == i)], all_S))
    found += [Stratum("cohort", str(name), all_C, all_S[cohort_S == name]) for name in np.unique(cohort_S)]
    return [one for one in found if len(one.cpg_C) and len(one.sample_S)]


def strata_table(
    measured_CS: np.ndarray, predicted_CS: np.ndarray, patient_S: np.ndarray, parts: list[Stratum], seed: int
) -> pd.DataFrame:
    """Compute the metrics of every part that has a measured cell, with 95 % intervals over patients (200 resamples).

    Of a part of more than two million cells the resamples are those of CpGs drawn at random that have so many, moved by
    what all CpGs change in the value.

    Parameters
    ----------
    measured_CS, predicted_CS, patient_S, seed
        As :func:`methyl_lightning.metrics.bootstrap.bootstrap_grid` takes them.
    parts
        From :func:`strata`.

    Returns
    -------
    pandas.DataFrame
        One row a part and metric, with the columns ``COLUMNS``; NaN where a metric or interval is not defined.
    """
    rows: list[tuple[str | int | float, ...]] = []
    for part in parts:
        at = np.ix_(part.cpg_C, part.sample_S)
        grids = measured_CS[at], predicted_CS[at]
        known_CS = ~np.isnan(grids[0])
        if not known_CS.any():
            continue
        sizes = (int(known_CS.any(axis=1).sum()), int(known_CS.any(axis=0).sum()), int(known_CS.sum()))
        large = sizes[-1] > LARGE
        some_C = some_rows(grids[0], np.random.default_rng(seed)) if large else slice(None)
        measured_cS, predicted_cS = (grid_CS[some_C] for grid_CS in grids)
        of_S = patient_S[part.sample_S]
        found = bootstrap_grid(measured_cS, predicted_cS, of_S, seed, N_RESAMPLES, ("patients",), batches=False)
        values = grid_values(*grids, seed, batches=False) if large else {name: one.value for name, one in found.items()}
        for name, one in found.items():
            moved_R = one.patients_R + (values[name] - one.value) if large else one.patients_R
            rows.append((part.by, part.group, *sizes, name, *interval(values[name], moved_R)))
    return pd.DataFrame(rows, columns=list(COLUMNS))
