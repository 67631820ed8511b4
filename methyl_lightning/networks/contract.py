"""The two-tower contract: CpGs are encoded once, samples are encoded once, and a combiner fills the grid.

Legend: C CpGs, S samples, G genes, L bases, K units, N pairs or (CpG, gene) entries.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from methyl_lightning.networks.sparse import fill_sparse


class CpgFeatures(NamedTuple):
    """What a network may know of C CpGs.

    Attributes
    ----------
    sequence_CL
        uint8 codes of ACGTN.
    gene_N, bp_N
        Gene index and signed distance (gene − CpG, base pairs) of every listed (CpG, gene) entry.
    offset_C
        First entry of each CpG.
    key_C
        int64 fingerprint of each CpG's name, the same in every store: tells whether a CpG was seen in training.
    chrom_C, position_C
        int64 fingerprint of the chromosome's name, and position on it; −1 where unknown.
    annotation_CP
        What islands, probes and the genome around tell, NaN where unknown; the columns of
        ``methyl_lightning.data.store.ANNOTATION``.
    """

    sequence_CL: Tensor
    gene_N: Tensor
    bp_N: Tensor
    offset_C: Tensor
    key_C: Tensor
    chrom_C: Tensor
    position_C: Tensor
    annotation_CP: Tensor


class GenePlaces(NamedTuple):
    """Where G genes lie on their chromosomes, 0-based and half-open (−1 unknown), and their strands, ±1 (0 unknown)."""

    start_G: Tensor
    end_G: Tensor
    strand_G: Tensor


class TrainingView(NamedTuple):
    """The training view, or whole rows of it, for networks that are fitted without gradients.

    Attributes
    ----------
    cpgs
        Features of C training CpGs.
    expression_SG
        Scaled expression of all training samples.
    beta_CS
        NaN where missing.
    genes
        Places of the genes.
    """

    cpgs: CpgFeatures
    expression_SG: Tensor
    beta_CS: Tensor
    genes: GenePlaces


class TrainingData(NamedTuple):
    """All that a network may see of the training data, read when it is called for.

    Attributes
    ----------
    distances
        Gene index and signed base pairs of every listed (CpG, gene) entry of the training CpGs.
    view
        The training view, or so many of its CpGs that it has at most this number of cells.
    """

    distances: Callable[[], tuple[Tensor, Tensor]]
    view: Callable[[int], TrainingView]


class MethylationNetwork(nn.Module, ABC):
    """A network of two towers and a combiner.

    ``gene_within_bp`` says on which CpGs the network is defined: those with a gene at most so far away (None: all);
    ``closed_form`` that :meth:`fit_statistics` fits all of it, and no training step is needed. A constructor that has
    arguments ``n_genes`` or ``window`` is given the sizes of the data.
    """

    gene_within_bp: int | None = None
    closed_form = False
    bounded = False  # whether what it gives lies between 0 and 1

    def fit_statistics(self, data: TrainingData) -> None:
        """Fit what is fitted without gradients, before the first step; by default nothing."""

    @abstractmethod
    def encode_cpgs(self, cpgs: CpgFeatures) -> Any:
        """Encode C CpGs: a NamedTuple of tensors whose first axis is C."""

    @abstractmethod
    def encode_samples(self, expression_SG: Tensor) -> Any:
        """Encode S samples from scaled expression: a NamedTuple of tensors whose first axis is S."""

    @abstractmethod
    def combine(self, cpgs: Any, samples: Any) -> Tensor:
        """Predict every cell of the grid: beta_hat_CS."""

    @abstractmethod
    def combine_pairs(self, cpgs: Any, samples: Any) -> Tensor:
        """Predict the N cells (CpG n, sample n): beta_hat_N."""

    def forward(self, cpgs: CpgFeatures, expression_SG: Tensor) -> Tensor:
        """Predict beta_hat_CS; batch statistics equal those of the C·S expanded pairs."""
        n_cpgs, n_samples = len(cpgs.offset_C), len(expression_SG)
        with repeated_rows(self, n_samples):
            cpg_encoding = self.encode_cpgs(cpgs)
        with repeated_rows(self, n_cpgs):
            sample_encoding = self.encode_samples(expression_SG)
        return self.combine(cpg_encoding, sample_encoding)

    def forward_pairs(self, cpgs: CpgFeatures, expression_NG: Tensor) -> Tensor:
        """Predict beta_hat_N for N expanded pairs, each with its own encodings (as upstream)."""
        return self.combine_pairs(self.encode_cpgs(cpgs), self.encode_samples(expression_NG))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # what is fitted takes the sizes of the checkpoint that is loaded
        for name, buffer in list(self.named_buffers()):
            if prefix + name in state_dict:
                owner, _, own_name = name.rpartition(".")
                setattr(self.get_submodule(owner), own_name, buffer.new_empty(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


class ClosedFormNetwork(MethylationNetwork):
    """A network without parameters: all that it knows is fitted at once and kept in buffers.

    Of a training view of more than ``most_cells`` cells whole CpGs are drawn at random.
    """

    closed_form = True
    most_cells = 50_000_000

    def add_buffers(self, **axes: int) -> None:
        """Register empty float buffers by name, with so many axes each."""
        for name, n in axes.items():
            self.register_buffer(name, torch.zeros([0] * n))

    def fit_statistics(self, data: TrainingData) -> None:
        """Fit everything to the training view, filled where most of it is missing."""
        view = data.view(self.most_cells)
        self.fit_closed_form(view._replace(beta_CS=fill_sparse(view.beta_CS)))

    @abstractmethod
    def fit_closed_form(self, view: TrainingView) -> None:
        """Fit the buffers to the training view."""


class RowBatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation of unique rows that each stand for ``repeats`` equal rows.

    Mean and biased variance of the unique rows are those of the repeated rows; only the running variance knows how many
    rows there were, through n / (n − 1). Running statistics therefore equal those of the expanded pairs.
    """

    repeats = 1

    def forward(self, input: Tensor) -> Tensor:
        """Normalise [n, K] or [n, K, L] over all axes but K."""
        if not self.training:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        mean_K, variance_K = torch.zeros_like(self.running_mean), torch.ones_like(self.running_var)
        output = functional.batch_norm(input, mean_K, variance_K, self.weight, self.bias, True, 1.0, self.eps)
        # batch_norm gave the unbiased variance of the n unique rows
        n = input.numel() // input.shape[1]
        pairs = n * self.repeats
        with torch.no_grad():
            self.running_mean.lerp_(mean_K, self.momentum)
            self.running_var.lerp_(variance_K * ((n - 1) / n) * (pairs / (pairs - 1)), self.momentum)
            self.num_batches_tracked.add_(1)
        return output


@contextmanager
def repeated_rows(network: nn.Module, repeats: int) -> Iterator[None]:
    """Let rows that a network's batch normalisations see within the block count ``repeats`` times."""
    layers = [layer for layer in network.modules() if isinstance(layer, RowBatchNorm1d)]
    for layer in layers:
        layer.repeats = repeats
    try:
        yield
    finally:
        for layer in layers:
            layer.repeats = 1
