"""Predicted views → tables that a person reads: every CpG's correlation, calibration, best and worst CpGs.

Legend: C CpGs, S samples, N cells.
"""

import math
from typing import Any

import anndata
import numpy as np
import pandas as pd

from methyl_lightning.data.splits import HEADLINE
from methyl_lightning.metrics import names
from methyl_lightning.metrics.scores import pearson_per_cpg

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


EVERY_CPG_ALIKE = "expression_only"
EVERY_SAMPLE_ALIKE = "sequence_only"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with a real minus sign, or a dash where there is none."""
    return names.number(value, digits).replace("-", "−")


def p_value(p: float) -> str:
    """Write a p value; a bootstrap cannot tell those below 0.001 apart."""
    return "–" if not math.isfinite(p) else "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def in_short(scores: pd.DataFrame, comparisons: pd.DataFrame) -> list[str]:
    """Say in one sentence or two how each run's own model did on the headline view, beside what it must beat.

    Parameters
    ----------
    scores
        Of :func:`methyl_lightning.report.runs.results`.
    comparisons
        Paired differences on the same cells, as in ``comparisons.csv``; may be empty.
    """
    cells: dict[Any, Any] = {}
    for row in scores[scores["view"] == HEADLINE].to_dict("records"):
        cells.setdefault(row["model"], {})[row["metric"]] = row
    paired: dict[Any, Any] = {}
    for row in comparisons.to_dict("records"):
        if (row["view"], row["reference"], row["metric"]) == (HEADLINE, EVERY_CPG_ALIKE, "mas_pcc"):
            paired[row["model"]] = row
    sentences = []
    for model, mine in cells.items():
        if not mine["mae"]["own"]:
            continue
        runs = mine["mae"]["n_runs"]
        text = f"{model}{f', mean of {runs} seeds' if runs > 1 else ''}: MAE {_cell(mine['mae'])}"
        text += f", pooled Spearman {_cell(mine['spearman'])}"
        text += f", MAS-PCC {_cell(mine['mas_pcc'])}"
        centred = mine.get("mas_pcc_centred", {"value": math.nan})  # older runs have none
        text += f", centred {_cell(centred)}." if math.isfinite(centred["value"]) else "."
        if runs > 1:
            spread = [f"{names.HEADINGS[key]} {number(mine[key]['sd'])}" for key in names.MAIN]
            text += f" Standard deviation over seeds: {', '.join(spread)}."
        if EVERY_SAMPLE_ALIKE in cells:
            alike = cells[EVERY_SAMPLE_ALIKE]
            text += f" The sequence alone, which knows nothing of a sample, has MAE {_cell(alike['mae'])}"
            text += f" and Spearman {_cell(alike['spearman'])}."
        if EVERY_CPG_ALIKE in cells:
            alike = cells[EVERY_CPG_ALIKE]["mas_pcc"]
            text += f" One number a sample ({EVERY_CPG_ALIKE}) has MAS-PCC {_cell(alike)}"
            text += _paired(paired[model]) if model in paired else _beside(mine["mas_pcc"], alike)
        sentences.append(text)
    return sentences


def _cell(row: dict[str, Any]) -> str:
    return names.with_interval(row["value"], row["low"], row["high"], " to ").replace("-", "−")


def _beside(model: dict[str, Any], reference: dict[str, Any]) -> str:
    if not (math.isfinite(model["low"]) and math.isfinite(reference["low"])):
        return "."
    if model["low"] > reference["high"]:
        return ": the model tells samples apart better than that."
    if model["high"] < reference["low"]:
        return ": the model tells samples apart worse than that."
    return "; the two intervals overlap, so these figures alone do not show that the model knows more than that."


def _paired(row: dict[str, Any]) -> str:
    text = f"; on the same cells the model's differs from it by {_cell(row | {'value': row['difference']})}"
    if not math.isfinite(row["low"]):
        return text + "."
    text += f", {p_value(row['p'])}: "
    if row["low"] <= 0 <= row["high"]:
        return text + "no sign that the model knows more than that."
    return text + f"the model tells samples apart {'better' if row['low'] > 0 else 'worse'} than that."
