"""Predicted views → tables that a person reads: every CpG's correlation, calibration, best and worst CpGs.

Legend: C CpGs, S samples, N cells.
"""

import anndata
import numpy as np
import pandas as pd

from methyl_lightning.metrics import pearson_per_cpg

BIN_EDGES = np.round(np.linspace(0, 1, 11), 1)


def grids(predictions: anndata.AnnData) -> tuple[np.ndarray, np.ndarray]:
    """Return measured (NaN missing) and predicted beta as float [C, S]."""
    return np.asarray(predictions.layers["measured"]).T, np.asarray(predictions.X).T


def cpg_scores(predictions: anndata.AnnData) -> pd.DataFrame:
    """Score every CpG of a predicted view.

    Returns
    -------
    pandas.DataFrame
        One row a CpG, as in ``predictions.var``, with ``pearson`` (across samples; NaN where measured or predicted beta
        does not differ between samples), ``mae``, ``measured_mean``, ``measured_sd``, and ``n``, its measured cells.
    """
    measured_CS, predicted_CS = grids(predictions)
    n_C = np.isfinite(measured_CS).sum(axis=1)
    count_C = np.where(n_C > 0, n_C, np.nan)
    mean_C = np.nansum(measured_CS, axis=1) / count_C
    return predictions.var.assign(
        pearson=pearson_per_cpg(measured_CS, predicted_CS),
        mae=np.nansum(np.abs(measured_CS - predicted_CS), axis=1) / count_C,
        measured_mean=mean_C,
        measured_sd=np.sqrt(np.nansum(np.square(measured_CS - mean_C[:, None]), axis=1) / count_C),
        n=n_C,
    )


def best_and_worst(scores: pd.DataFrame, n: int = 10) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Choose the CpGs with the highest and, worst first, the lowest correlation, from :func:`cpg_scores`.

    No CpG is in both; both are empty where the model predicts the same for every sample.
    """
    ranked = scores[scores["pearson"].notna()].sort_values("pearson", ascending=False, kind="stable")
    n = min(n, len(ranked) // 2)
    return ranked.head(n), ranked.tail(n).iloc[::-1]


def calibration(predictions: anndata.AnnData) -> pd.DataFrame:
    """Compare predicted with measured beta in bins of predicted beta.

    Returns
    -------
    pandas.DataFrame
        One row a bin that has cells: ``low``, ``high`` (of predicted beta, tenths of 0…1, infinite beyond), ``n``
        cells, mean ``predicted``, mean ``measured``, and the measured quartiles ``q25`` and ``q75``.
    """
    measured_CS, predicted_CS = grids(predictions)
    mask_CS = np.isfinite(measured_CS)
    measured_N, predicted_N = measured_CS[mask_CS].astype(float), predicted_CS[mask_CS].astype(float)
    edges = np.array([-np.inf, *BIN_EDGES, np.inf])
    bin_N = np.searchsorted(edges, predicted_N, side="right") - 1
    bin_N[predicted_N == 1] -= 1  # the last bin within 0…1 holds its upper edge
    cells = pd.DataFrame({"bin": bin_N, "predicted": predicted_N, "measured": measured_N}).groupby("bin")
    measured, present = cells["measured"], np.unique(bin_N)
    return pd.DataFrame(
        {
            "low": edges[present],
            "high": edges[present + 1],
            "n": measured.size(),
            "predicted": cells["predicted"].mean(),
            "measured": measured.mean(),
            "q25": measured.quantile(0.25),
            "q75": measured.quantile(0.75),
        }
    ).reset_index(drop=True)


def calibration_error(bins: pd.DataFrame) -> float:
    """Mean distance of predicted from measured means over the bins of :func:`calibration`, weighted by their cells."""
    return float(np.average((bins["predicted"] - bins["measured"]).abs(), weights=bins["n"]))
