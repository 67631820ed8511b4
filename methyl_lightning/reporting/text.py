"""Metrics → numbers and sentences that a person reads."""

import math
from typing import Any

import pandas as pd

from methyl_lightning.evaluation import HEADLINE

EVERY_CPG_ALIKE = "expression_only"
EVERY_SAMPLE_ALIKE = "sequence_only"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number with a real minus sign, or a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def published(value: float) -> str:
    """Write a published figure with as many digits as were published."""
    return f"{value:.2f}" if value == round(value, 2) else f"{value:.3f}"


def p_value(p: float) -> str:
    """Write a p value; a bootstrap cannot tell those below 0.001 apart."""
    return "–" if not math.isfinite(p) else "p < 0.001" if p < 0.001 else f"p {p:.3f}"


def in_short(scores: pd.DataFrame, comparisons: pd.DataFrame) -> list[str]:
    """Say in one sentence or two how each run's own model did on the headline view, beside what it must beat.

    Parameters
    ----------
    scores
        Of :func:`methyl_lightning.reporting.runs.results`.
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
        text = f"{model}: MAE {_cell(mine['mae'])}, pooled Spearman {_cell(mine['spearman'])}"
        text += f", MAS-PCC {_cell(mine['mas_pcc'])}."
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
    if not math.isfinite(row["low"]):
        return number(row["value"])
    return f"{number(row['value'])} ({number(row['low'])} to {number(row['high'])})"


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
