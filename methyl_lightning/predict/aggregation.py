"""Shallow samples are taken together before prediction: by a label, or with their nearest neighbours.

Legend: S samples of the input, R rows that are predicted, K neighbours, P components, I genes.
"""

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from sklearn.neighbors import NearestNeighbors

from methyl_lightning.files import InputError
from methyl_lightning.readers.annotated import Expression
from methyl_lightning.readers.units import row_slices, to_linear

WAYS = ("none", "label", "spatial", "expression")
N_COMPONENTS, FITTED_ROWS = 30, 10_000


def average_matrix(expression: Expression, units: str, aggregate: str, label: str | None, k: int) -> Any:
    """Say which samples are averaged into which rows.

    Parameters
    ----------
    expression
        The input.
    units
        Of its values.
    aggregate
        ``label``: one row for each value of the column ``label`` of obs. ``spatial`` or ``expression``: each sample
        with its ``k`` nearest neighbours, by ``obsm["spatial"]`` or by the first 30 components of log expression.
    label, k
        See ``aggregate``.

    Returns
    -------
    scipy.sparse.csr_matrix or None
        [R, S], rows sum to 1; None with ``none``.

    Raises
    ------
    InputError
        If the column, the coordinates or enough samples are missing.
    """
    if aggregate not in WAYS:
        raise InputError(f"aggregate={aggregate}: must be one of {', '.join(WAYS)}")
    if aggregate == "none":
        return None
    if aggregate == "label":
        return _by_label(expression, label)
    if not 1 <= k < len(expression.obs):
        raise InputError(f"k={k}: must be at least 1 and less than the {len(expression.obs):,} samples")
    if aggregate == "spatial":
        if "spatial" not in expression.obsm or not expression.obsm["spatial"].shape[1]:
            raise InputError(f"{expression.source}: no obsm['spatial']; use aggregate=expression, or add coordinates")
        place_SP = pd.DataFrame(expression.obsm["spatial"]).apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
        lost_S = np.asarray(~np.isfinite(place_SP).all(axis=1))
        if lost_S.any():
            lost = f"{int(lost_S.sum()):,} of {len(lost_S):,} samples ({expression.obs.index[lost_S][0]!r}, …)"
            raise InputError(f"{expression.source}: obsm['spatial'] has no coordinates of {lost}; remove these samples")
    else:
        place_SP = _components(expression, units)
    n_samples = len(place_SP)
    # asked without rows of its own, no sample is its own neighbour, not even one that lies exactly on another
    others_SK = NearestNeighbors(n_neighbors=k).fit(place_SP).kneighbors(return_distance=False)
    column_SK = np.concatenate([np.arange(n_samples)[:, None], others_SK], axis=1)
    indptr_S = np.arange(n_samples + 1) * (k + 1)
    share_N = np.full(column_SK.size, 1 / (k + 1))
    return sparse.csr_matrix((share_N, column_SK.ravel(), indptr_S), shape=(n_samples, n_samples))


def _components(expression: Expression, units: str) -> np.ndarray:
    """Components [S, P] of log1p of 10,000 molecules a sample, fitted on at most 10,000 samples drawn at random."""
    n_samples = len(expression.obs)

    def log_rows(index: slice | np.ndarray) -> sparse.csr_matrix:
        linear_SI = sparse.csr_matrix(to_linear(expression.rows(index), units))
        total_S = np.asarray(linear_SI.sum(axis=1)).ravel()
        scale_S = 1e4 / np.where(total_S > 0, total_S, 1)
        return sparse.csr_matrix(linear_SI.multiply(scale_S[:, None])).log1p()

    drawn_S = np.sort(np.random.default_rng(0).permutation(n_samples)[:FITTED_ROWS])
    n_components = min(N_COMPONENTS, n_samples - 1, len(expression.var) - 1)
    reduction = TruncatedSVD(n_components, random_state=0).fit(log_rows(drawn_S))
    return np.concatenate([reduction.transform(log_rows(rows)) for rows in row_slices(n_samples)])


def label_groups(expression: Expression, label: str | None) -> pd.Categorical:
    """Read a column of obs as groups; a missing value belongs to none."""
    if label is None or label not in expression.obs:
        columns = ", ".join(map(str, expression.obs.columns)) or "none"
        raise InputError(f"{expression.source}: no column {label!r} in obs (there are: {columns}); name one of them")
    return pd.Categorical(expression.obs[label].astype("category").cat.remove_unused_categories())


def _by_label(expression: Expression, label: str | None) -> sparse.csr_matrix:
    groups = label_groups(expression, label)
    known_N = np.flatnonzero(groups.codes >= 0)
    counts_R = np.bincount(groups.codes[known_N], minlength=len(groups.categories))
    share_N = 1 / counts_R[groups.codes[known_N]]
    shape = (len(groups.categories), len(groups))
    return sparse.csr_matrix((share_N, (groups.codes[known_N], known_N)), shape=shape)
