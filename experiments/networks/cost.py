"""Measure what fitting and predicting cost at a size of one's own, on random numbers.

usage: python -m experiments.networks.cost N_CPGS N_SAMPLES N_GENES [NETWORK]

Legend: C CpGs, S samples, G genes.
"""

import resource
import sys
import time

import numpy as np
import torch

from methyl_lightning import networks
from methyl_lightning.data.store import ANNOTATION
from methyl_lightning.networks.contract import GenePlaces

WINDOW, NEAR_GENES, CHROMOSOME_BP, N_CHROMOSOMES, MISSING = 122, 6, 150_000_000, 22, 0.02
N_PREDICTED, BLOCK = 10_000, (64, 256)


def random_view(n_cpgs: int, n_samples: int, n_genes: int) -> networks.TrainingView:
    """Make CpGs, genes, expression and beta at random, beta of a few factors and noise."""
    rng = np.random.default_rng(0)
    chrom_C, position_C = rng.integers(N_CHROMOSOMES, size=n_cpgs), rng.integers(CHROMOSOME_BP, size=n_cpgs)
    gene_N = rng.integers(n_genes, size=n_cpgs * NEAR_GENES)
    bp_N = rng.integers(-100_000, 100_000, size=len(gene_N)).astype(np.int32)
    start_G = rng.integers(CHROMOSOME_BP, size=n_genes)
    cpgs = networks.CpgFeatures(
        torch.from_numpy(rng.integers(0, 4, size=(n_cpgs, WINDOW), dtype=np.uint8)),
        torch.from_numpy(gene_N),
        torch.from_numpy(bp_N),
        torch.arange(n_cpgs) * NEAR_GENES,
        torch.arange(n_cpgs),
        torch.from_numpy(chrom_C),
        torch.from_numpy(position_C),
        torch.from_numpy(rng.normal(size=(n_cpgs, len(ANNOTATION))).astype(np.float32)),
    )
    expression_SG = torch.from_numpy(rng.normal(8, 2, size=(n_samples, n_genes)).astype(np.float32))
    factor_SQ = expression_SG[:, :8] - 8
    beta_CS = torch.empty(n_cpgs, n_samples)
    for first in range(0, n_cpgs, 4096):
        rows = slice(first, min(first + 4096, n_cpgs))
        loading_CQ = cpgs.annotation_CP[rows, :8]
        noise_CS = torch.from_numpy(rng.normal(size=(len(loading_CQ), n_samples)).astype(np.float32))
        beta_CS[rows] = (0.3 * loading_CQ @ factor_SQ.T + noise_CS).sigmoid()
        beta_CS[rows][noise_CS < np.quantile(noise_CS[:1], MISSING)] = torch.nan
    genes = GenePlaces(
        torch.from_numpy(start_G),
        torch.from_numpy(start_G + 20_000),
        torch.from_numpy(rng.choice([-1, 1], size=n_genes)),
    )
    return networks.TrainingView(cpgs, expression_SG, beta_CS, genes)


def memory() -> float:
    """Return the largest resident memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main(n_cpgs: int, n_samples: int, n_genes: int, name: str = "MethylationFactors") -> None:
    """Print seconds of the processor and memory."""
    torch.set_num_threads(1)
    view = random_view(n_cpgs, n_samples, n_genes)
    print(f"{name}, {n_cpgs:,} × {n_samples:,} × {n_genes:,}: the numbers themselves {memory():.1f} GB", flush=True)
    network, start = getattr(networks, name)(n_genes=n_genes), time.process_time()
    network.fit_closed_form(view)
    print(f"fit {time.process_time() - start:.0f} s, {memory():.1f} GB", flush=True)
    network.eval()
    n_predicted = min(N_PREDICTED, n_cpgs)
    for kind, shift in (("seen", 0), ("unseen", n_cpgs)):
        start = time.process_time()
        with torch.inference_mode():
            samples = [network.encode_samples(part) for part in view.expression_SG.split(BLOCK[1])]
            for first in range(0, n_predicted, BLOCK[0]):
                part = _rows(view.cpgs, first, first + BLOCK[0])
                encoded = network.encode_cpgs(part._replace(key_C=part.key_C + shift))
                for some in samples:
                    network.combine(encoded, some)
        print(f"prediction of {n_predicted:,} {kind} CpGs × {n_samples:,}: {time.process_time() - start:.1f} s")


def _rows(cpgs: networks.CpgFeatures, first: int, last: int) -> networks.CpgFeatures:
    entries = slice(first * NEAR_GENES, last * NEAR_GENES)
    sequence_CL, gene_N, bp_N, offset_C, *others = cpgs
    return networks.CpgFeatures(
        sequence_CL[first:last],
        gene_N[entries],
        bp_N[entries],
        offset_C[first:last] - first * NEAR_GENES,
        *(part[first:last] for part in others),
    )


if __name__ == "__main__":
    main(*(int(size) for size in sys.argv[1:4]), *sys.argv[4:])
