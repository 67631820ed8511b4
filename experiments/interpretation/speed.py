"""Measure what interpreting the paper's network costs at the published size, in seconds.

usage: python -m experiments.interpretation.speed [--genes 20000] [--threads 1]

Seconds of one thread are the processor's, those of several the clock's: they need an idle machine.

Parts that grow with a number are measured on a few and multiplied: samples of the screening, genes knocked out exactly,
and windows mutated.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from methyl_lightning.interpret.knockout import Expression, Grid, knock_out, predict_anew
from methyl_lightning.interpret.mutagenesis import mutate
from methyl_lightning.networks import CpgFeatures, LevyJurgenson

N_CPGS, N_SAMPLES, WINDOW, NEAR, N_EXACT, N_WINDOWS = 1000, 200, 800, 5, 100, 100
TIMED, TIMED_WINDOWS, FEW = 10, 20, 8


def cpgs(n: int, n_genes: int) -> CpgFeatures:
    """Draw CpGs with a few genes near each."""
    whole = torch.zeros(n, dtype=torch.int64)
    return CpgFeatures(
        torch.randint(0, 4, (n, WINDOW), dtype=torch.uint8),
        torch.randint(0, n_genes, (n * NEAR,)),
        torch.randint(-20_000, 20_000, (n * NEAR,), dtype=torch.int32),
        torch.arange(n) * NEAR,
        torch.arange(n),
        whole,
        whole,
        torch.zeros(n, 19),
    )


def seconds(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds and the result of a call."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    made = call()
    return clock() - start, made


@torch.no_grad()
def main() -> None:
    """Print the costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--genes", type=int, default=20_000)
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    n_genes = settings.genes
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    network = LevyJurgenson(n_genes, WINDOW).eval().requires_grad_(False)
    expression_SG, mean_G = torch.randn(N_SAMPLES, n_genes), torch.zeros(n_genes)
    encode, encoded = seconds(lambda: network.encode_cpgs(cpgs(N_CPGS, n_genes)))
    few = Expression(expression_SG[:TIMED], mean_G, mean_G + 1)
    screen, _ = seconds(lambda: knock_out(network, encoded, few, np.full((3, N_CPGS), 1 / N_CPGS), 0))
    samples = network.encode_samples(expression_SG)
    connected = torch.randn(N_CPGS, network.connected.out_features, N_SAMPLES)
    grid = Grid(encoded, samples, connected, torch.zeros(N_CPGS, N_SAMPLES))
    every = Expression(expression_SG, mean_G, mean_G + 1)
    exact, _ = seconds(lambda: predict_anew(network, grid, every, [0]))
    windows = [cpgs(1, n_genes) for _ in range(TIMED_WINDOWS)]
    mutations, _ = seconds(lambda: mutate(network, windows, expression_SG[:FEW]))
    screen, mutations = screen * N_SAMPLES / TIMED, mutations * N_WINDOWS / TIMED_WINDOWS
    size = f"{n_genes:,} genes × {N_CPGS:,} CpGs × {N_SAMPLES} samples"
    print(f"{size}: encoding {encode:.1f} s, screening {screen:.0f} s, {N_EXACT} exactly {N_EXACT * exact:.0f} s")
    print(f"{N_WINDOWS} windows of {WINDOW} bp, both strands: {mutations:.0f} s")


if __name__ == "__main__":
    main()
