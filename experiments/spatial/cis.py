"""Cis relations: how the methylation of a promoter's CpG goes with the expression of its gene.

Legend: C CpGs, S samples of the cohort, N spots or samples that are predicted.
"""

import math

import numpy as np
import pandas as pd
from scipy.stats import rankdata, spearmanr

from experiments.spatial.checks import agreement, without
from experiments.spatial.inputs import Run

LEAST_RHO = 0.2  # |Spearman| in the cohort from which on a relation has a sign that is worth comparing
LEAST_DETECTED = 0.1  # share of spots with a molecule of a gene whose relation is looked at


def own_gene(expression: pd.DataFrame, cpgs: pd.DataFrame) -> np.ndarray:
    """Return the expression [rows, C] of each promoter CpG's nearest gene; NaN where there is none."""
    gene_C = np.where(cpgs["promoter"], cpgs["nearest_gene"].astype(str), "")
    return expression.reindex(columns=pd.Index(gene_C)).to_numpy(np.float64)


def cohort_relation(run: Run) -> np.ndarray:
    """Return Spearman's correlation [C] of measured beta with the expression of the CpG's gene over all samples."""
    rho_C = np.full(len(run.cpgs), np.nan)
    for c, (beta_S, expression_S) in enumerate(zip(run.beta_CS, own_gene(run.expression_SG, run.cpgs).T, strict=True)):
        known_S = np.isfinite(beta_S) & np.isfinite(expression_S)
        if known_S.sum() >= 20 and np.ptp(beta_S[known_S]) > 0 and np.ptp(expression_S[known_S]) > 0:
            rho_C[c] = spearmanr(beta_S[known_S], expression_S[known_S])[0]
    return rho_C


def predicted_relation(run: Run, beta_NC: np.ndarray, expression: pd.DataFrame, given_N: np.ndarray) -> np.ndarray:
    """Return Spearman's partial correlation [C] of predicted beta with the CpG's gene, given ``given_N``.

    NaN where the prediction does not vary, or the gene is hardly detected.
    """
    own_NC, rho_C = own_gene(expression, run.cpgs), np.full(len(run.cpgs), np.nan)
    chosen_C = np.isfinite(own_NC).all(axis=0) & ((own_NC > 0).mean(axis=0) >= LEAST_DETECTED)
    chosen_C &= (np.ptp(own_NC, axis=0) > 0) & (beta_NC.std(axis=0) > 1e-5)
    given = rankdata(given_N)
    beta, own = (without(rankdata(values[:, chosen_C], axis=0), given) for values in (beta_NC, own_NC))
    rho_C[chosen_C] = (beta * own).sum(axis=0) / np.sqrt((beta**2).sum(axis=0) * (own**2).sum(axis=0))
    return rho_C


def same_relation(predicted_C: np.ndarray, cohort_C: np.ndarray) -> dict[str, float]:
    """Compare the signs of relations where the cohort's is clear."""
    clear_C = np.isfinite(predicted_C) & (np.abs(cohort_C) >= LEAST_RHO)
    found = agreement(predicted_C[clear_C], cohort_C[clear_C])
    negative = {
        "negative_predicted": float((predicted_C[clear_C] < 0).mean()) if clear_C.any() else math.nan,
        "negative_cohort": float((cohort_C[clear_C] < 0).mean()) if clear_C.any() else math.nan,
    }
    return {**found, **negative}
