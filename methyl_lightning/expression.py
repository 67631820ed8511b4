"""Expression scaling, fitted on training samples and carried in the checkpoint.

Legend: S samples, G genes.
"""

import torch
from torch import Tensor, nn


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
