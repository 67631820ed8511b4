"""The genome of the simulated cohort: genes, CpG islands, bases, the CpGs of the array, and motifs planted around them.

Axis letters: C CpGs, G genes, I islands, L bases, D drivers, A anchors, P planted motifs.
"""

import numpy as np
import pandas as pd
from numpy.random import Generator

from methyl_lightning.data.distances import gene_position
from methyl_lightning.data.store import ALPHABET

A, C, G, T = (ALPHABET.index(letter) for letter in "ACGT")
SEA, NEAR, SHORE, ISLAND = range(4)
ZONE_NAMES = ("OpenSea", "OpenSea", "Shore", "Island")  # the relations of Illumina's annotation
ZONE_SHARES = np.array([0.36, 0.10, 0.23, 0.31])  # of the CpGs, as on HM450 (its shelves count as sea)

BASES_PER_GENE = 20_000
GENE_MARGIN = 2_000  # no transcription start nearer to a chromosome end
NEAR_BP = 2_000  # from a transcription start
SHORE_BP = 2_000  # from an island
ISLAND_SHARE = 0.7  # of the genes
ORPHANS_PER_GENE = 0.5  # islands without a gene: 43 % of HM450's island CpGs are farther than 2 kb from a start

# Richness runs from 0 (sea) to 1 (the densest islands). The middle 122 bp of a window then hold 1, 2, 3, 6 and 9 other
# CpGs at the 10th, 25th, 50th, 75th and 90th percentile; real windows of HM450 1, 2, 4, 8 and 11.
SEA_RICHNESS, TILE_BP = 0.5, 500  # the largest richness of a tile of the sea
ISLAND_RICHNESS, TAPER_BP = (0.4, 1.0), 500
GC_SHARE = (0.41, 0.68)  # from the sea to the densest islands
CPG_LOSS = 0.78  # of the CpGs of the sea

MOTIF_LENGTH = 10
MOTIF_SLOT = 15  # a motif starts at base 0…5 of its slot
MOTIF_REACH = 120
MOTIF_SHARE = 0.45  # of the CpGs
CLUSTER_SHARE, N_MATES = 0.4, 2  # 63 % of HM450's CpGs have another of the array within 260 bp


def draw_genes(rng: Generator, n_genes: int, shape: tuple[int, int]) -> pd.DataFrame:
    """Draw the gene table, evenly over the chromosomes, in the order of the genome."""
    n_chromosomes, length = shape
    chrom_G = np.sort(np.arange(n_genes) % n_chromosomes)
    tss_G = rng.integers(GENE_MARGIN, length - GENE_MARGIN, n_genes)
    tss_G = tss_G[np.lexsort((tss_G, chrom_G))]
    body_G = np.clip(rng.lognormal(np.log(8_000), 1.0, n_genes), 500, 100_000).astype(np.int64)
    plus_G = rng.random(n_genes) < 0.5
    return pd.DataFrame(
        {
            "symbol": [f"GENE{g:05d}" for g in range(n_genes)],
            "id": [f"SIMG{g:011d}" for g in range(n_genes)],
            "chrom": np.char.add("chr", (chrom_G + 1).astype(str)).astype(object),
            "start": np.where(plus_G, tss_G, np.maximum(tss_G + 1 - body_G, 0)),
            "end": np.where(plus_G, np.minimum(tss_G + body_G, length), tss_G + 1),
            "strand": np.where(plus_G, "+", "-").astype(object),
        }
    )


def draw_genome(
    rng: Generator, genes: pd.DataFrame, has_island_G: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the bases and mark each as sea, near a gene, shore or island: two uint8 [chromosome, base]."""
    (n_chromosomes, length), n_orphans = shape, round(ORPHANS_PER_GENE * len(genes))
    tss_G, chrom_G = gene_position(genes, "tss"), pd.factorize(genes["chrom"])[0]
    chrom_I = np.concatenate([chrom_G[has_island_G], rng.integers(n_chromosomes, size=n_orphans)])
    centre_I = np.concatenate([tss_G[has_island_G], rng.integers(GENE_MARGIN, length - GENE_MARGIN, n_orphans)])
    length_I = rng.integers(500, 2_001, len(chrom_I))
    low_I = centre_I - (length_I * rng.uniform(0.3, 0.7, len(chrom_I))).astype(np.int64)
    peak_I = rng.uniform(*ISLAND_RICHNESS, len(chrom_I)).astype(np.float32)

    zone = np.full(shape, SEA, dtype=np.uint8)
    for kind, reach, chrom, low, high in (
        (NEAR, NEAR_BP, chrom_G, tss_G, tss_G + 1),
        (SHORE, SHORE_BP, chrom_I, low_I, low_I + length_I),
        (ISLAND, 0, chrom_I, low_I, low_I + length_I),
    ):
        for row, start, stop in zip(chrom, low, high, strict=True):
            zone[row, max(start - reach, 0) : stop + reach] = kind

    tile = SEA_RICHNESS * rng.random((n_chromosomes, -(-length // TILE_BP)), dtype=np.float32) ** 2
    richness = np.repeat(tile, TILE_BP, axis=1)[:, :length]
    taper = np.linspace(0, 1, TAPER_BP, endpoint=False, dtype=np.float32)
    for row, start, size, peak in zip(chrom_I, low_I, length_I, peak_I, strict=True):
        shape_L = peak * np.concatenate([taper, np.ones(size, np.float32), taper[::-1]])
        start = max(start - TAPER_BP, 0)
        part = richness[row, start : start + len(shape_L)]
        np.maximum(part, shape_L[: len(part)], out=part)

    is_gc = rng.random(shape, dtype=np.float32) < GC_SHARE[0] + (GC_SHARE[1] - GC_SHARE[0]) * richness
    is_second = rng.integers(0, 2, shape, dtype=np.uint8)
    genome = np.where(is_gc, np.where(is_second, G, C), np.where(is_second, T, A)).astype(np.uint8)
    row, base = np.nonzero(is_cpg(genome))
    fate, loss = rng.random(len(row)), CPG_LOSS * (1 - richness[row, base])
    to_tg, to_ca = fate < loss / 2, (fate >= loss / 2) & (fate < loss)
    genome[row[to_tg], base[to_tg]] = T
    genome[row[to_ca], base[to_ca] + 1] = A
    return genome, zone


def is_cpg(bases: np.ndarray) -> np.ndarray:
    """Tell where a C is followed by a G along the last axis (one shorter than ``bases``)."""
    return (bases[..., :-1] == C) & (bases[..., 1:] == G)


def _n_slots(window: int) -> int:
    """Count the motif slots on each side of a CpG."""
    return min(MOTIF_REACH, window // 2 - 1) // MOTIF_SLOT


def choose_cpgs(
    rng: Generator, genome: np.ndarray, zone: np.ndarray, n_cpgs: int, window: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Choose CpGs by the shares of the zones, some with mates that are so near that their windows show the same motifs.

    Clusters lie so far apart that no window shows a motif planted for another cluster. Returns row in the genome, base
    of the C, and base of the C of the cluster's anchor, int64 [C] each, in the order of the genome.
    """
    half, length = window // 2, genome.shape[1]
    chrom, position = np.nonzero(is_cpg(genome))
    inside = (position >= half - 1) & (position < length - half)
    chrom, position = chrom[inside], position[inside]
    kind = zone[chrom, position]
    weight = (ZONE_SHARES / np.maximum(np.bincount(kind, minlength=len(ZONE_SHARES)), 1))[kind]
    mate_bp = max(half - 4 - _n_slots(window) * MOTIF_SLOT, 0)
    spacing = half + mate_bp + MOTIF_REACH + MOTIF_LENGTH
    place = chrom * (length + mate_bp + 1) + position
    has_mates = rng.random(len(weight)) < CLUSTER_SHARE
    free = np.full(genome.shape, True)
    chosen: list[int] = []
    anchor: list[int] = []
    for i in np.argsort(rng.exponential(size=len(weight)) / weight, kind="stable"):
        if not free[chrom[i], position[i]]:
            continue
        free[chrom[i], max(position[i] - spacing, 0) : position[i] + spacing + 1] = False
        cluster = [i]
        if has_mates[i]:
            low, high = np.searchsorted(place, [place[i] - mate_bp, place[i] + mate_bp + 1])
            near = np.delete(np.arange(low, high), i - low)
            cluster += rng.permutation(near)[:N_MATES].tolist()
        cluster = cluster[: n_cpgs - len(chosen)]
        chosen += cluster
        anchor += [i] * len(cluster)
        if len(chosen) == n_cpgs:
            order = np.argsort(chosen)
            at, of = np.array(chosen)[order], np.array(anchor)[order]
            return chrom[at], position[at], position[of]
    raise ValueError(f"n_cpgs={n_cpgs}: must be at most {len(chosen)}, or n_genes larger, or window={window} smaller")


def plant_motifs(
    rng: Generator,
    genome: np.ndarray,
    chrom_C: np.ndarray,
    position_C: np.ndarray,
    anchor_C: np.ndarray,
    n_drivers: int,
    window: int,
) -> tuple[list[str], np.ndarray]:
    """Write 2–4 copies of one motif (fewer where the window is too narrow) around some anchors of the genome, in place.

    Returns the motifs as text (distinct, without CG), and the motif of each CpG's anchor, int64 [C], −1 none.
    """
    candidate = rng.choice(4**MOTIF_LENGTH, 64 * n_drivers, replace=False)[:, None] // 4 ** np.arange(MOTIF_LENGTH) % 4
    motif_DL = candidate[~is_cpg(candidate).any(axis=1)][:n_drivers].astype(np.uint8)
    place, cluster_C = np.unique(np.stack([chrom_C, anchor_C], axis=1), axis=0, return_inverse=True)
    chrom_A, position_A = place.T
    cluster_C = cluster_C.reshape(-1)
    motif_A = np.where(rng.random(len(place)) < MOTIF_SHARE, rng.integers(n_drivers, size=len(place)), -1)
    start = np.arange(_n_slots(window)) * MOTIF_SLOT  # on each side of the CG
    slot_start = np.concatenate([-MOTIF_SLOT - start, 2 + start])
    from_slot_CS = (position_C - anchor_C)[:, None] - slot_start
    rank_AS = rng.random((len(place), len(slot_start)))
    np.add.at(rank_AS, cluster_C, (from_slot_CS > -2) & (from_slot_CS < MOTIF_SLOT))  # no motif over a mate's CG
    copies_A = rng.integers(2, 5, len(place))
    chosen_AS = (rank_AS.argsort(axis=1).argsort(axis=1) < copies_A[:, None]) & (rank_AS < 1)
    anchor_P, slot_P = np.nonzero(chosen_AS & (motif_A >= 0)[:, None])
    jitter_P = rng.integers(0, MOTIF_SLOT - MOTIF_LENGTH + 1, len(anchor_P))
    start_P = position_A[anchor_P] + slot_start[slot_P] + jitter_P
    genome[chrom_A[anchor_P][:, None], start_P[:, None] + np.arange(MOTIF_LENGTH)] = motif_DL[motif_A[anchor_P]]
    return ["".join(ALPHABET[code] for code in motif_L) for motif_L in motif_DL], motif_A[cluster_C]
