"""What metrics are called in tables, figures and pages, and how their numbers are written."""

import math

# in the order of metrics.json, strata.csv and comparisons.csv; each is a function of metrics.scores
BETA = {
    "mae": "MAE",
    "mse": "MSE",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "spearman_batch50": "Spearman, by 50",
    "mas_pcc": "MAS-PCC",
    "mas_pcc_centred": "MAS-PCC, centred",
    "mac_pcc": "MAC-PCC",
}
# of calls of sequencing, beside those of beta; each is a function of metrics.calls
CALLS = {"auroc": "AUROC", "auroc_per_cpg": "AUROC, per CpG", "sample_mean_r": "r of sample means"}
HEADINGS = BETA | CALLS
COLUMNS = ("mae", "spearman", "spearman_batch50", "pearson", "mas_pcc", "mas_pcc_centred", "mac_pcc")  # of tables
MAIN = ("mae", "spearman", "mas_pcc")  # where there is room for few
AXES = HEADINGS | {"mae": "MAE (beta)", "spearman": "Spearman, pooled"}  # beside the axes of figures
UNDEFINED = "–"


def number(value: float | None, digits: int = 3) -> str:
    """Write a number, or a dash where there is none."""
    return UNDEFINED if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def with_interval(value: float | None, low: float | None, high: float | None, to: str = "–") -> str:
    """Write a value and, where they are defined, its bounds in parentheses."""
    bounds = [number(bound) for bound in (low, high)]
    return number(value) if UNDEFINED in (number(value), *bounds) else f"{number(value)} ({to.join(bounds)})"
