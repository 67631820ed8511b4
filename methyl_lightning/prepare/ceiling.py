"""The best possible prediction of a simulated cohort, from the truth that lies beside its store.

Axis letters: C CpGs, S samples, K values along the genome, T training CpGs.
"""

import json
from pathlib import Path

import h5py
import numpy as np
from scipy.special import expit

from methyl_lightning.data.checks import REMEDY
from methyl_lightning.data.sealed import check_seal
from methyl_lightning.data.store import Store

# what is drawn along the genome correlates by exp(−distance / REGION_BP): levels of CpGs 300 bp apart .8, 1.5 kb .15
REGION_BP = 1_400
# below this logit CpGs vary less: logits have an sd of .3 instead of .9 (chr17), of .2 instead of .7 (COAD)
KNEE, QUIET = -2.5, 0.35


def truth_path(store: str | Path) -> Path:
    """Name the file that the truth of a store is written to."""
    return Path(store).with_suffix(".truth.h5")


def to_beta(level: np.ndarray) -> np.ndarray:
    """Turn levels into beta: the logistic function, flattened where levels are low."""
    above = level - KNEE
    return expit(KNEE + QUIET * above + (1 - QUIET) * np.logaddexp(0, above))


def read_ceiling(
    store_path: str | Path, cpg_index_C: np.ndarray, sample_index_S: np.ndarray, training_cpg_T: np.ndarray
) -> np.ndarray | None:
    """Read the best possible prediction of a part of the grid.

    All that sequence, expression and near genes tell is known; a CpG's own terms are where it has labels in training,
    and elsewhere as far as the nearest training CpGs on either side tell them.

    Parameters
    ----------
    store_path
        Complete store.
    cpg_index_C, sample_index_S
        Rows and columns, in the order wanted.
    training_cpg_T
        CpGs with labels in training.

    Returns
    -------
    numpy.ndarray or None
        float32 [C, S]; None where the store is not simulated or its truth does not lie beside it.
    """
    store = Store(store_path)
    provenance, path = store.attributes["provenance"], truth_path(store_path)
    if provenance.get("source") != "simulated" or not path.is_file():
        return None
    check_seal(path, REMEDY)
    with h5py.File(path, "r") as file:
        if json.loads(file.attrs["settings"]) != provenance["settings"]:
            return None
        level_CS = file["level"][:][cpg_index_C[:, None], sample_index_S[None, :]].astype(np.float64)
        offset_sd, median_spread = file["cpgs/offset"].attrs["sd"], file["cpgs/spread"].attrs["median"]
        along_CK = np.column_stack([file["cpgs/offset"][:], file["cpgs/response"][:]])
        spread_C = np.where(np.isin(cpg_index_C, training_cpg_T), file["cpgs/spread"][:][cpg_index_C], median_spread)
        factor_SK = file["samples/factor"][:][sample_index_S]
    chrom = store.cpgs["chrom"].to_numpy()
    told_CK = told_by_neighbours(along_CK, chrom, store.position_C, training_cpg_T)[cpg_index_C]
    level_CS += offset_sd * told_CK[:, :1] + spread_C[:, None] * (told_CK[:, 1:] @ factor_SK.T)
    return to_beta(level_CS).astype(np.float32)


def told_by_neighbours(
    along_CK: np.ndarray, chrom_C: np.ndarray, position_C: np.ndarray, training_cpg_T: np.ndarray
) -> np.ndarray:
    """Compute what the training CpGs tell of each CpG's standard normal values: their conditional mean [C, K].

    Given the nearest one on either side, correlated by a = exp(−distance / ``REGION_BP``) and b, others tell nothing
    more (Ornstein-Uhlenbeck process): weights a (1 − b²) / (1 − a² b²) and b (1 − a²) / (1 − a² b²).
    """
    told_CK = np.zeros_like(along_CK)
    is_training_C = np.isin(np.arange(len(position_C)), training_cpg_T)
    for chrom in np.unique(chrom_C):
        all_C = np.flatnonzero(chrom_C == chrom)
        known_T = all_C[is_training_C[all_C]]
        if not len(known_T):
            continue
        known_T = known_T[np.argsort(position_C[known_T], kind="stable")]
        right_C = np.searchsorted(position_C[known_T], position_C[all_C])
        left_T, right_T = known_T[np.maximum(right_C - 1, 0)], known_T[np.minimum(right_C, len(known_T) - 1)]
        a_C = np.where(right_C > 0, np.exp((position_C[left_T] - position_C[all_C]) / REGION_BP), 0)
        b_C = np.where(right_C < len(known_T), np.exp((position_C[all_C] - position_C[right_T]) / REGION_BP), 0)
        rest_C = np.maximum(1 - (a_C * b_C) ** 2, np.finfo(float).tiny)
        weight_2C = np.stack([a_C * (1 - b_C**2), b_C * (1 - a_C**2)]) / rest_C
        told_CK[all_C] = weight_2C[0, :, None] * along_CK[left_T] + weight_2C[1, :, None] * along_CK[right_T]
    told_CK[is_training_C] = along_CK[is_training_C]
    return told_CK
