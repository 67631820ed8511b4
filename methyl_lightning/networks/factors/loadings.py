"""Loadings of CpGs from their features: a Gaussian process by Nyström, and kriging from near training CpGs.

The kernel of two CpGs is exp(−‖Δ‖) of their weighted features (Matérn 1/2). Some training CpGs stand for all (all of
them, where they are few: then the process is exact). What the other chromosomes leave unexplained of the near training
CpGs is kriged by distance and added.

Legend: C CpGs, M inducing CpGs, K neighbours, P features, T targets, F folds.
"""

import torch
from torch import Tensor, nn

N_FOLDS = 5
PENALTIES = tuple(10 ** (i / 2) for i in range(-3, 6))  # variance of the noise over that of the process
BLOCK_BP = 2_000_000  # what stands for a chromosome where there are fewer chromosomes than folds
SMALLEST = 1e-9  # share of the largest eigenvalue
ROWS = 4096
N_NEIGHBOURS, REACH_BP = 16, 1_000_000
KRIGING = ((300.0, 2.5), (3e3, 0.8), (3e4, 0.3), (3e5, 0.15), (3e6, 0.1))  # range in bp, and weight
NOISES = (0.1, 0.3, 1.0, 3.0, 10.0)


def chromosome_folds(chrom_C: Tensor, position_C: Tensor) -> Tensor:
    """Put whole chromosomes, or stretches where chromosomes are few, into folds of about one size: [C].

    A CpG whose place is unknown is a chromosome of its own.
    """
    unknown_C = (chrom_C == -1) | (position_C < 0)
    few = len(chrom_C[~unknown_C].unique()) < N_FOLDS
    stretch_C = position_C // BLOCK_BP if few else torch.zeros_like(position_C)
    own_C = torch.where(unknown_C, torch.arange(len(chrom_C), device=chrom_C.device), -1)
    _, group_C = torch.stack([own_C, torch.where(unknown_C, 0, chrom_C), stretch_C], 1).unique(
        dim=0, return_inverse=True
    )
    size_N = group_C.bincount()
    fold_N, filled = torch.zeros_like(size_N), [0] * N_FOLDS
    for group in size_N.argsort(descending=True, stable=True).tolist():
        smallest = filled.index(min(filled))
        fold_N[group] = smallest
        filled[smallest] += int(size_N[group])
    return fold_N[group_C]


def kriging_kernel(bp: Tensor) -> Tensor:
    """Correlation of two CpGs so many bases apart."""
    scale, weight = torch.tensor(KRIGING, device=bp.device).T
    return torch.exp(-bp[..., None] / scale) @ (weight / weight.sum())


def krige(bp_CK: Tensor, between_CKK: Tensor, known_CK: Tensor, noise: float) -> Tensor:
    """Weights of the neighbours [C, K], which lie so far from the CpG and from each other; 0 of those that aren't."""
    pairs_CKK = known_CK[:, :, None] & known_CK[:, None]
    near_CK1, gram_CKK = kriging_kernel(torch.cat([bp_CK[:, :, None], between_CKK], 2)).split([1, bp_CK.shape[1]], 2)
    gram_CKK = gram_CKK * pairs_CKK
    gram_CKK.diagonal(dim1=1, dim2=2).copy_(torch.where(known_CK, 1 + noise, 1.0))
    return torch.linalg.solve(gram_CKK, near_CK1 * known_CK[:, :, None]).squeeze(2)


class Loadings(nn.Module):
    """Regression of targets on the features and the places of CpGs.

    Parameters
    ----------
    n_inducing
        Largest number of inducing CpGs M.
    """

    inducing_MP: Tensor
    weight_MT: Tensor
    mean_T: Tensor
    chrom_C: Tensor
    position_C: Tensor
    residual_CT: Tensor
    noise: Tensor

    def __init__(self, n_inducing: int):
        super().__init__()
        self.n_inducing = n_inducing
        for name, shape in (
            ("inducing_MP", (0, 0)),
            ("weight_MT", (0, 0)),
            ("mean_T", (0,)),
            ("residual_CT", (0, 0)),
            ("noise", ()),
        ):
            self.register_buffer(name, torch.zeros(shape))
        for name in ("chrom_C", "position_C"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.int64))

    def fit(self, features_CP: Tensor, chrom_C: Tensor, position_C: Tensor, target_CT: Tensor) -> Tensor:
        """Fit to training CpGs; return what each is predicted by the others' chromosomes: [C, T]."""
        n_cpgs = len(features_CP)
        kept_M = torch.randperm(n_cpgs, generator=torch.Generator().manual_seed(n_cpgs))[: self.n_inducing]
        self.inducing_MP = features_CP[kept_M.sort().values]
        value_M, vector_MM = torch.linalg.eigh(self._kernel(self.inducing_MP))
        large_M = value_M > SMALLEST * value_M[-1]
        basis_MM = vector_MM[:, large_M] / value_M[large_M].sqrt()

        deviation_T, self.mean_T = torch.std_mean(target_CT, 0, correction=0)
        scaled_CT = ((target_CT - self.mean_T) / deviation_T.clamp(min=1e-12)).double()
        fold_C = chromosome_folds(chrom_C, position_C)
        gram_FMM = torch.zeros(N_FOLDS, len(basis_MM), len(basis_MM), dtype=torch.float64)
        moment_FMT = torch.zeros(N_FOLDS, len(basis_MM), scaled_CT.shape[1], dtype=torch.float64)
        for rows in slices(n_cpgs):
            kernel_CM = self._kernel(features_CP[rows])
            for f in range(N_FOLDS):
                of_CM = kernel_CM[fold_C[rows] == f]
                gram_FMM[f] += of_CM.T @ of_CM
                moment_FMT[f] += of_CM.T @ scaled_CT[rows][fold_C[rows] == f]
        # the basis comes in after the sums over CpGs, as it then costs the same however many they are
        without_FMT, weight_MT = _fit_by_folds(basis_MM.T @ gram_FMM @ basis_MM, basis_MM.T @ moment_FMT)
        without_FMT = basis_MM @ without_FMT
        out_CT = torch.cat(
            [_by_fold(self._kernel(features_CP[rows]), without_FMT, fold_C[rows]) for rows in slices(n_cpgs)]
        )
        self.weight_MT = ((basis_MM @ weight_MT) * deviation_T).float()
        self._fit_kriging(chrom_C, position_C, (scaled_CT - out_CT).float())
        self.residual_CT *= deviation_T
        return (out_CT * deviation_T + self.mean_T).float()

    def _kernel(self, features_CP: Tensor) -> Tensor:
        # in float32 distances near 0 are wrong by up to .01, another amount among more CpGs; Apple's GPUs lack float64
        precise = torch.float32 if features_CP.device.type == "mps" else torch.float64
        return torch.exp(-torch.cdist(features_CP.to(precise), self.inducing_MP.to(precise)))

    def _fit_kriging(self, chrom_C: Tensor, position_C: Tensor, residual_CT: Tensor) -> None:
        """Keep the residuals in the order of the genome, and choose the noise by leaving each CpG out."""
        order_C = _genome_order(chrom_C, position_C)
        self.chrom_C, self.position_C, self.residual_CT = chrom_C[order_C], position_C[order_C], residual_CT[order_C]
        some_C = torch.linspace(0, len(order_C) - 1, min(len(order_C), ROWS)).long()
        at = self.chrom_C[some_C], self.position_C[some_C]
        row_CK, known_CK = self._neighbours(*at, itself_C=some_C)
        errors = []
        for noise in NOISES:
            predicted_CT = self._krige(*at, row_CK, known_CK, noise)
            errors.append(float((predicted_CT - self.residual_CT[some_C]).square().sum()))
        self.noise = torch.tensor(NOISES[errors.index(min(errors))])

    def _neighbours(self, chrom_C: Tensor, position_C: Tensor, itself_C: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the nearest training CpGs: rows [C, K] and which of them are there, but for the CpG itself."""
        chroms = self.chrom_C.unique_consecutive()  # sorted; so are the positions on each
        index_C = torch.searchsorted(chroms, chrom_C).clamp(max=max(len(chroms) - 1, 0))
        of_C = torch.searchsorted(chroms, self.chrom_C)
        span = 2 * int(torch.cat([self.position_C, position_C]).max()) + 4 * REACH_BP
        place_C, line_C = index_C * span + position_C, of_C * span + self.position_C
        window = torch.arange(-N_NEIGHBOURS, N_NEIGHBOURS + 1, device=chrom_C.device)
        row_CW = torch.searchsorted(line_C, place_C)[:, None] + window
        inside_CW = (row_CW >= 0) & (row_CW < len(line_C))
        row_CW = row_CW.clamp(0, len(line_C) - 1)
        bp_CW = (line_C[row_CW] - place_C[:, None]).abs()
        known_CW = inside_CW & (bp_CW <= REACH_BP) & ((chroms[index_C] == chrom_C) & (position_C >= 0))[:, None]
        known_CW &= (self.position_C >= 0)[row_CW] & (self.chrom_C != -1)[row_CW]
        if itself_C is not None:
            known_CW &= row_CW != itself_C[:, None]
        nearest_CK = torch.where(known_CW, bp_CW, span).argsort(dim=1, stable=True)[:, :N_NEIGHBOURS]
        return row_CW.gather(1, nearest_CK), known_CW.gather(1, nearest_CK)

    def _krige(self, chrom_C: Tensor, position_C: Tensor, row_CK: Tensor, known_CK: Tensor, noise: float) -> Tensor:
        place_CK = self.position_C[row_CK]
        bp_CK = (place_CK - position_C[:, None]).abs().float()
        between_CKK = (place_CK[:, :, None] - place_CK[:, None]).abs().float()
        weight_CK = krige(bp_CK, between_CKK, known_CK, noise)
        return torch.einsum("ck,ckt->ct", weight_CK, self.residual_CT[row_CK])

    def forward(self, features_CP: Tensor, chrom_C: Tensor, position_C: Tensor) -> Tensor:
        """Predict the targets of CpGs: [C, T]."""
        row_CK, known_CK = self._neighbours(chrom_C, position_C)
        near_CT = self._krige(chrom_C, position_C, row_CK, known_CK, float(self.noise))
        return self.mean_T + self._kernel(features_CP).float() @ self.weight_MT + near_CT


def slices(n: int, size: int = ROWS) -> list[slice]:
    """Cut n rows into slices of at most ``size``."""
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _genome_order(chrom_C: Tensor, position_C: Tensor) -> Tensor:
    by_position_C = position_C.argsort(stable=True)
    return by_position_C[chrom_C[by_position_C].argsort(stable=True)]


def _fit_by_folds(gram_FMM: Tensor, moment_FMT: Tensor) -> tuple[Tensor, Tensor]:
    """Choose each target's penalty by leaving out folds: weights without each fold [F, M, T] and of all [M, T]."""
    grid = torch.tensor(PENALTIES, dtype=torch.float64)
    total_MM, total_MT = gram_FMM.sum(0), moment_FMT.sum(0)
    error_LT = torch.zeros(len(grid), total_MT.shape[1], dtype=torch.float64)
    spectra = []
    for gram_MM, moment_MT in zip(gram_FMM, moment_FMT, strict=True):
        value_M, vector_MM = torch.linalg.eigh(total_MM - gram_MM)
        value_M, rotated_MT = value_M.clamp(min=0), vector_MM.T @ (total_MT - moment_MT)
        held_MM, held_MT = vector_MM.T @ gram_MM @ vector_MM, vector_MM.T @ moment_MT
        for i, penalty in enumerate(grid):
            weight_MT = rotated_MT / (value_M[:, None] + penalty)
            error_LT[i] += (weight_MT * (held_MM @ weight_MT - 2 * held_MT)).sum(0)  # but for the targets' squares
        spectra.append((value_M, vector_MM, rotated_MT))
    penalty_T = grid[error_LT.argmin(0)]
    without = [vector @ (rotated / (value[:, None] + penalty_T)) for value, vector, rotated in spectra]
    value_M, vector_MM = torch.linalg.eigh(total_MM)
    weight_MT = vector_MM @ ((vector_MM.T @ total_MT) / (value_M.clamp(min=0)[:, None] + penalty_T))
    return torch.stack(without), weight_MT


def _by_fold(kernel_CM: Tensor, weight_FMT: Tensor, fold_C: Tensor) -> Tensor:
    """Predict each row by the weights without its fold: [C, T]."""
    predicted_CT = kernel_CM.new_zeros(len(kernel_CM), weight_FMT.shape[2])
    for f, weight_MT in enumerate(weight_FMT):
        predicted_CT[fold_C == f] = kernel_CM[fold_C == f] @ weight_MT
    return predicted_CT
