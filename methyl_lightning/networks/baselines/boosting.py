"""Gradient boosting on what anyone would hand to it: k-mers, CpG density, gene distances, expression of near genes.

The trees are grown by scikit-learn and kept as tensors, so that a checkpoint needs neither scikit-learn nor pickled
objects.

Legend: C CpGs, S samples, G genes, P features, K near genes, N cells, T trees, M nodes of a tree.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from methyl_lightning.networks.baselines.features import (
    Standardiser,
    distance_features,
    nearest_genes,
    sequence_features,
)
from methyl_lightning.networks.contract import ClosedFormNetwork, CpgFeatures, TrainingView

CELLS = 8192  # whose trees are walked at once
LEARNING_RATE, PATIENCE = 0.05, 20  # growth ends when so many more trees have not helped
HELD_OUT = 5  # one in so many CpGs and one in so many samples choose the number of trees
BUFFERS = {
    "feature_TM": torch.int64,
    "threshold_TM": torch.float32,
    "left_TM": torch.int64,
    "right_TM": torch.int64,
    "value_TM": torch.float32,
}


class Cpgs(NamedTuple):
    """Features of each CpG [C, P], and the index of its nearest genes [C, K], −1 where there are fewer."""

    features_CP: Tensor
    gene_CK: Tensor


class Samples(NamedTuple):
    """Standardised expression [S, G]."""

    expression_SG: Tensor


def grown_trees(regressor: Any) -> tuple[list[np.ndarray], float]:
    """Return the nodes of each tree, and what they are added to.

    Both are private to scikit-learn, which shows only the trees of its exact boosting; that takes 17 times as long.
    """
    nodes = [predictor.nodes for (predictor,) in regressor._predictors]
    return nodes, float(np.squeeze(regressor._baseline_prediction))


class Trees(nn.Module):
    """Regression trees that are summed."""

    feature_TM: Tensor
    threshold_TM: Tensor
    left_TM: Tensor
    right_TM: Tensor
    value_TM: Tensor
    baseline: Tensor
    depth: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, dtype in BUFFERS.items():
            self.register_buffer(name, torch.zeros(0, 1, dtype=dtype))
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("depth", torch.zeros((), dtype=torch.int64))

    def take(self, regressor: Any) -> None:
        """Copy the trees of a fitted ``HistGradientBoostingRegressor`` grown on features without NaN and categories."""
        nodes, baseline = grown_trees(regressor)
        shape = len(nodes), max(map(len, nodes), default=1)
        arrays = {name: np.zeros(shape, getattr(self, name).numpy().dtype) for name in BUFFERS}
        for t, tree in enumerate(nodes):
            own, leaf = np.arange(len(tree)), tree["is_leaf"].astype(bool)
            threshold = tree["num_threshold"].astype(np.float32)
            # features are float32: x <= threshold holds exactly as long as the threshold is rounded down
            rounded_up = threshold > tree["num_threshold"]
            threshold[rounded_up] = np.nextafter(threshold[rounded_up], np.float32(-np.inf))
            columns = (
                np.where(leaf, 0, tree["feature_idx"]),
                threshold,
                np.where(leaf, own, tree["left"]),  # a walk that has come to a leaf stays there
                np.where(leaf, own, tree["right"]),
                tree["value"],
            )
            for name, column in zip(BUFFERS, columns, strict=True):
                arrays[name][t, : len(tree)] = column
        for name, array in arrays.items():
            setattr(self, name, torch.from_numpy(array))
        self.baseline = torch.tensor(baseline)
        self.depth = torch.tensor(max((int(tree["depth"].max()) for tree in nodes), default=0))

    def forward(self, features_NP: Tensor) -> Tensor:
        """Predict rows [N, P] → [N]."""
        n_trees, n_nodes = self.value_TM.shape
        first_T = torch.arange(n_trees, device=features_NP.device) * n_nodes  # of each tree in the flat tables
        feature, threshold, left, right, value = (getattr(self, name).flatten() for name in BUFFERS)
        parts = []
        for rows_NP in features_NP.split(CELLS):
            at_NT = first_T.expand(len(rows_NP), -1)
            for _ in range(int(self.depth)):
                goes_left_NT = rows_NP.gather(1, feature[at_NT]) <= threshold[at_NT]
                at_NT = first_T + torch.where(goes_left_NT, left[at_NT], right[at_NT])
            parts.append(value[at_NT].sum(1) + self.baseline)
        return torch.cat(parts)


class KmerGbm(ClosedFormNetwork):
    """Gradient-boosted trees on k-mer shares, CpG density, gene distances and the expression of the nearest genes.

    Squared error, on cells drawn at random from the training view. The number of trees is the one with the least error
    on CpGs × samples that were held out inside that view; with it the trees are grown anew on cells of the whole view.

    Parameters
    ----------
    longest_kmer
        k-mers of 1 … so many bases.
    n_nearest
        Genes whose signed distance and standardised expression are features.
    n_cells
        Largest number of cells that trees are grown on.
    n_trees
        Largest number of trees.
    seed
        Of the draw of cells and of held-out CpGs and samples.
    """

    def __init__(
        self,
        longest_kmer: int = 3,
        n_nearest: int = 5,
        n_cells: int = 100_000,
        n_trees: int = 300,
        seed: int = 0,
    ):
        super().__init__()
        for name, value in (("n_nearest", n_nearest), ("n_cells", n_cells), ("n_trees", n_trees)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        self.longest_kmer, self.n_nearest = longest_kmer, n_nearest
        self.n_cells, self.n_trees, self.seed = n_cells, n_trees, seed
        self.genes, self.trees = Standardiser(), Trees()

    def fit_closed_form(self, view: TrainingView) -> None:
        """Grow the trees."""
        self.genes.fit(view.expression_SG)
        cpgs, samples = self.encode_cpgs(view.cpgs), self.encode_samples(view.expression_SG)
        rng = np.random.default_rng(self.seed)
        measured_CS = ~view.beta_CS.isnan().numpy()
        held_C, held_S = (rng.permutation(n) % HELD_OUT == 0 for n in measured_CS.shape)

        def rows(wanted_CS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            cpg_N, sample_N = np.nonzero(wanted_CS & measured_CS)
            drawn = np.sort(rng.permutation(len(cpg_N))[: self.n_cells])
            c, s = torch.from_numpy(cpg_N[drawn]), torch.from_numpy(sample_N[drawn])
            return self._features(cpgs, samples, c, s).numpy(), view.beta_CS[c, s].numpy()

        fitting, held_out = rows(~held_C[:, None] & ~held_S), rows(held_C[:, None] & held_S)
        n_trees = self._best_size(fitting, held_out) if len(fitting[1]) and len(held_out[1]) else self.n_trees
        self.trees.take(self._regressor(n_trees).fit(*rows(np.full_like(measured_CS, True))))

    def _regressor(self, n_trees: int, patience: int | None = None) -> Any:
        from sklearn.ensemble import HistGradientBoostingRegressor  # slow to import, and predictions do without it

        return HistGradientBoostingRegressor(
            learning_rate=LEARNING_RATE,
            max_iter=n_trees,
            max_depth=6,
            early_stopping=patience is not None,
            n_iter_no_change=patience or 1,
            random_state=self.seed,
        )

    def _best_size(self, fitting: tuple[np.ndarray, np.ndarray], held_out: tuple[np.ndarray, np.ndarray]) -> int:
        """Find the number of trees, at least one, with the least squared error on held-out cells."""
        regressor = self._regressor(self.n_trees, PATIENCE).fit(*fitting, X_val=held_out[0], y_val=held_out[1])
        return max(1, int(np.argmax(regressor.validation_score_)))  # the first score is that of no tree

    def _features(self, cpgs: Cpgs, samples: Samples, cpg_N: Tensor, sample_N: Tensor) -> Tensor:
        """Join CpG features and the expression of the nearest genes, 0 where there are fewer, of cells: [N, P + K]."""
        gene_NK = cpgs.gene_CK[cpg_N]
        near_NK = samples.expression_SG[sample_N[:, None], gene_NK.clamp(min=0)]
        return torch.cat([cpgs.features_CP[cpg_N], near_NK.masked_fill(gene_NK < 0, 0.0)], 1)

    def encode_cpgs(self, cpgs: CpgFeatures) -> Cpgs:
        """Make the features that depend on the CpG alone."""
        gene_CK, bp_CK = nearest_genes(cpgs, self.n_nearest)
        parts = (sequence_features(cpgs, self.longest_kmer), distance_features(cpgs), bp_CK.float())
        return Cpgs(torch.cat(parts, 1), gene_CK)

    def encode_samples(self, expression_SG: Tensor) -> Samples:
        """Standardise the expression."""
        return Samples(self.genes(expression_SG))

    def combine(self, cpgs: Cpgs, samples: Samples) -> Tensor:
        """Fill the grid, some CpGs at a time: beta_hat_CS."""
        n_samples = len(samples.expression_SG)
        sample_S = torch.arange(n_samples, device=cpgs.gene_CK.device)
        parts = []
        for cpg_C in torch.arange(len(cpgs.gene_CK), device=sample_S.device).split(max(1, CELLS // max(1, n_samples))):
            cells = cpg_C.repeat_interleave(n_samples), sample_S.repeat(len(cpg_C))
            parts.append(self.trees(self._features(cpgs, samples, *cells)).view(len(cpg_C), n_samples))
        return torch.cat(parts)

    def combine_pairs(self, cpgs: Cpgs, samples: Samples) -> Tensor:
        """Predict pair by pair: beta_hat_N."""
        row_N = torch.arange(len(cpgs.gene_CK), device=cpgs.gene_CK.device)
        return self.trees(self._features(cpgs, samples, row_N, row_N))
