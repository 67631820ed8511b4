"""Expression scaling, fitted on training samples and carried in the checkpoint, and dilution as in shallow samples.

Legend: S samples, G genes.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from methyl_lightning.files import InputError

METHODS = ("mask", "multinomial", "binomial", "none")


def dilute(
    expression_SG: np.ndarray,
    method: str,
    retention: float,
    rng: np.random.Generator,
    sample_S: Sequence[str] | None = None,
) -> np.ndarray:
    """Dilute the expression of samples as a single cell or a spatial spot of theirs would be.

    Parameters
    ----------
    expression_SG
        log2(x + 1) values, none below 0.
    method
        - ``mask`` (upstream's): ``retention`` genes are drawn with replacement, each with the probability value / sum
          of the sample's values; drawn genes keep their full value, the others become 0.
        - ``multinomial``: ``retention`` molecules are drawn, a gene's share being its share of the counts 2^value − 1;
          the draws are brought to the sample's original total and returned as log2(x + 1). The physical model of
          shallow sequencing; unbiased on the count scale.
        - ``binomial``: each molecule of the counts 2^value − 1, rounded to integers, stays with the probability
          ``retention``; what stays is divided by it and returned as log2(x + 1). Unbiased alike.
        - ``none``: values as they are.
    retention
        Number of draws, at least 1; with ``binomial`` a share, above 0 and at most 1.
    rng
        Of the draws.
    sample_S
        Names of the samples for errors (default: their row numbers).

    Returns
    -------
    numpy.ndarray
        [S, G] of the type that was given.

    Raises
    ------
    InputError
        If there is no such method, the retention is out of its range, a value is negative, or a sample has no
        expression at all.

    Notes
    -----
    Source of ``mask``: agotliber/CH3_project, its dilution test.
    """
    check_dilution(method, retention)
    if method == "none":
        return expression_SG.copy()
    _check_samples(expression_SG, sample_S)
    value_SG = expression_SG.astype(np.float64)
    if method == "mask":
        # how often each gene was drawn; only whether it was drawn at all counts
        drawn_SG = rng.multinomial(int(retention), value_SG / value_SG.sum(axis=1, keepdims=True))
        return np.where(drawn_SG > 0, expression_SG, expression_SG.dtype.type(0))
    count_SG = np.expm1(value_SG * np.log(2))
    if method == "multinomial":
        total_S1 = count_SG.sum(axis=1, keepdims=True)
        kept_SG = rng.multinomial(int(retention), count_SG / total_S1) * (total_S1 / retention)
    else:
        kept_SG = rng.binomial(np.rint(count_SG).astype(np.int64), retention) / retention
    return (np.log1p(kept_SG) / np.log(2)).astype(expression_SG.dtype)


def check_dilution(method: str, retention: float) -> None:
    """Raise the errors of :func:`dilute` that depend on the settings alone."""
    if method not in METHODS:
        raise InputError(f"method={method!r}: must be one of {METHODS}")
    if method == "binomial" and not 0 < retention <= 1:
        raise InputError(f"retention={retention:g}: with binomial thinning a share, above 0 and at most 1")
    if method in ("mask", "multinomial") and (retention < 1 or retention != int(retention)):
        raise InputError(f"retention={retention:g}: with {method} the number of draws, a whole number of at least 1")


def _check_samples(expression_SG: np.ndarray, sample_S: Sequence[str] | None) -> None:
    for wrong_S, what in (
        ((expression_SG < 0).any(axis=1), "has negative expression; dilution needs log2(x + 1) of counts"),
        (~(expression_SG > 0).any(axis=1), "has no expression at all, so nothing can be drawn; leave it out"),
    ):
        if wrong_S.any():
            s = int(np.argmax(wrong_S))
            raise InputError(f"sample {s if sample_S is None else repr(str(sample_S[s]))} {what}")


class MinMaxScaler(nn.Module):
    """Scale each gene linearly so that its training minimum and maximum become 10 and 100 (as upstream).

    Upstream fitted it on all samples before the split; here it sees training samples only, so a test value may fall
    outside 10…100. A gene that is constant in training becomes 10 throughout.

    Parameters
    ----------
    n_genes
        Number of genes G.
    """

    LOW, HIGH = 10.0, 100.0
    minimum_G: Tensor
    range_G: Tensor

    def __init__(self, n_genes: int):
        super().__init__()
        self.register_buffer("minimum_G", torch.zeros(n_genes))
        self.register_buffer("range_G", torch.zeros(n_genes))

    def fit(self, expression_SG: Tensor) -> None:
        """Take minimum and range of each gene over the training samples."""
        minimum_G, maximum_G = expression_SG.aminmax(dim=0)
        self.minimum_G.copy_(minimum_G)
        self.range_G.copy_(maximum_G - minimum_G)

    def forward(self, expression_SG: Tensor) -> Tensor:
        """Scale expression [S, G]."""
        varies_G = self.range_G > 0
        unit_SG = (expression_SG - self.minimum_G) / torch.where(varies_G, self.range_G, 1.0)
        return torch.where(varies_G, unit_SG * (self.HIGH - self.LOW) + self.LOW, self.LOW)


class ZScoreScaler(nn.Module):
    """Scale each gene to mean 0 and standard deviation 1 over the training samples; one that is constant becomes 0.

    Parameters
    ----------
    n_genes
        Number of genes G.
    """

    mean_G: Tensor
    deviation_G: Tensor

    def __init__(self, n_genes: int):
        super().__init__()
        self.register_buffer("mean_G", torch.zeros(n_genes))
        self.register_buffer("deviation_G", torch.zeros(n_genes))

    def fit(self, expression_SG: Tensor) -> None:
        """Take mean and standard deviation of each gene over the training samples."""
        minimum_G, maximum_G = expression_SG.aminmax(dim=0)
        deviation_G, mean_G = torch.std_mean(expression_SG, dim=0, correction=0)
        self.mean_G.copy_(mean_G)
        self.deviation_G.copy_(torch.where(maximum_G > minimum_G, deviation_G, 0.0))  # no rounding left over

    def forward(self, expression_SG: Tensor) -> Tensor:
        """Scale expression [S, G]."""
        varies_G = self.deviation_G > 0
        return torch.where(varies_G, (expression_SG - self.mean_G) / torch.where(varies_G, self.deviation_G, 1.0), 0.0)


class NoScaler(nn.Module):
    """Leave expression in the units of the store."""

    def __init__(self, n_genes: int):
        super().__init__()

    def fit(self, expression_SG: Tensor) -> None:
        """Take nothing."""

    def forward(self, expression_SG: Tensor) -> Tensor:
        """Return expression [S, G] as it is."""
        return expression_SG


SCALERS: dict[str, type[MinMaxScaler | ZScoreScaler | NoScaler]] = {
    "minmax": MinMaxScaler,
    "zscore": ZScoreScaler,
    "none": NoScaler,
}
