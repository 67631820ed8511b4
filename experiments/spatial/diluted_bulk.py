"""Bulk samples made as thin as spots, and predicted on the way that spots go: the one check with measured methylation.

Legend: C CpGs, S samples, G genes, N spots.
"""

from collections.abc import Sequence
from typing import Any

import anndata
import numpy as np
import pandas as pd

from experiments.spatial import cis
from experiments.spatial.checks import explained
from experiments.spatial.inputs import MATCHES, Run
from methyl_lightning.metrics.scores import mae, mas_pcc
from methyl_lightning.predict import predict

LEVELS = (500, 2_000, 10_000, 100_000)  # molecules a sample
AS_SPOTS, UNDILUTED = "as spots", "undiluted"
ALL_LEVELS = (AS_SPOTS, *LEVELS, UNDILUTED)


def thin(linear_SG: np.ndarray, molecules_S: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw molecules of each sample, a gene's chance being its share of the linear expression; float32 [S, G]."""
    return rng.multinomial(molecules_S, linear_SG / linear_SG.sum(axis=1, keepdims=True)).astype(np.float32)


def within_interval(predicted: anndata.AnnData, measured_CS: np.ndarray) -> np.ndarray:
    """Tell which measured values lie inside their prediction's interval, half a beta step of the store allowed."""
    lower_CS, upper_CS = (np.asarray(predicted.layers[name]).T for name in ("lower", "upper"))
    return (measured_CS >= lower_CS - 5e-5) & (measured_CS <= upper_CS + 5e-5)


def thinned_bulk(
    run: Run, cohort_cis_C: np.ndarray, genes: pd.Index, molecules_N: np.ndarray, levels: Sequence[Any], seed: int = 0
) -> pd.DataFrame:
    """Predict thinned test patients, with each way of matching the scale, and compare with measured methylation.

    Parameters
    ----------
    run
        The run, and the CpGs that are looked at.
    cohort_cis_C
        The cohort's relation of CpGs with their genes.
    genes
        Genes that are drawn from: those of the sections.
    molecules_N
        Molecules of these genes in each spot; at the level ``as spots`` each sample gets as many as a random spot.
    levels
        Molecules of a sample, ``as spots`` or ``undiluted``.
    seed
        Of the draws.

    Returns
    -------
    pandas.DataFrame
        One row a (level, match, CpGs): ``molecules`` (level), ``genes`` (distinct, mean over samples), ``cpgs`` (seen
        in training or unseen), ``mas_pcc``, ``mae``, ``covered`` (share of cells inside their intervals), ``shift``
        (mean predicted − mean measured beta), ``sd`` of predictions between samples (median over CpGs),
        ``r2_molecules`` (of a sample's mean prediction), and, of all promoters, ``cis_n``, ``cis_negative``,
        ``cis_same_sign`` and ``cis_same_sign_chance``.
    """
    sample_S = run.split.sample["test"]
    measured_CS = run.beta_CS[:, sample_S]
    bulk = run.expression_SG.iloc[sample_S][genes]
    linear_SG = np.exp2(bulk.to_numpy(np.float64)) - 1
    rows = []
    for level in levels:
        if level == UNDILUTED:
            values_SG, molecules_S, ways = bulk.to_numpy(), np.ones(len(sample_S)), {"none": "log2"}
            shown = bulk
        else:
            rng = np.random.default_rng([seed, 0 if level == AS_SPOTS else int(level)])
            drawn = rng.choice(molecules_N, len(sample_S)) if level == AS_SPOTS else np.full(len(sample_S), level)
            molecules_S, ways = drawn.astype(np.int64), dict.fromkeys(MATCHES, "counts")
            values_SG = thin(linear_SG, molecules_S, rng)
            shown = pd.DataFrame(np.log1p(1e4 * values_SG / molecules_S[:, None]), bulk.index, genes)
        data = anndata.AnnData(values_SG, pd.DataFrame(index=bulk.index), pd.DataFrame(index=genes))
        for match, units in ways.items():
            ids = run.cpgs.index.tolist()
            settings: dict[str, Any] = {"match": match, "units": units, "min_coverage": 0}
            predicted = predict(run.checkpoint, data, ids, **settings)
            beta_SC = np.asarray(predicted.X, dtype=np.float64)
            inside_CS = within_interval(predicted, measured_CS)
            found = cis.same_relation(cis.predicted_relation(run, beta_SC, shown, np.log10(molecules_S)), cohort_cis_C)
            for cpgs, own_part in (("seen", "train"), ("unseen", "test")):
                chosen_C = (run.cpgs["part"] == own_part).to_numpy()
                measured, beta_hat = measured_CS[chosen_C], beta_SC.T[chosen_C]
                row: dict[str, Any] = {"run": run.name, "molecules": level, "match": match, "cpgs": cpgs}
                row |= {"genes": float((values_SG > 0).sum(axis=1).mean())}
                row |= {"mas_pcc": mas_pcc(measured, beta_hat), "mae": mae(measured, beta_hat)}
                row |= {"covered": inside_CS[chosen_C][np.isfinite(measured)].mean()}
                row |= {"shift": float(np.nanmean(beta_hat - measured))}
                row |= {"sd": float(np.median(beta_hat.std(axis=1)))}
                row |= {"r2_molecules": explained(beta_hat.mean(axis=0), np.log10(molecules_S))}
                row |= {"cis_n": found["n"], "cis_negative": found["negative_predicted"]}
                row |= {f"cis_{name}": found[name] for name in ("same_sign", "same_sign_chance")}
                rows.append(row)
    return pd.DataFrame(rows)
