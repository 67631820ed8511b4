"""A cohort with a known truth: genome, genes, expression and methylation drawn from one seed.

Methylation is a sum on the logit scale: a base level set by the CpG density around the CpG, a trans term (a motif near
the CpG × the expression of the driver gene of that motif), a cis term (the expression of the nearest genes), an offset
of each CpG that nothing predicts, and measurement noise. Offset and noise are symmetric on that scale, so the terms
without them give the best possible prediction under L1 loss. That ceiling lies beside the store as
``<store stem>.truth.h5``; prediction errors can be read against it.

Axis letters: C CpGs, S samples, G genes, L bases, D drivers, N (CpG, gene) entries, P planted motifs, K latent factors.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.sparse import csr_array
from scipy.special import expit

from methyl_lightning.data.distances import gene_distances, gene_position
from methyl_lightning.data.store import ALPHABET, Distances, Store, write_store
from methyl_lightning.files import replacing

A, C, G, T = (ALPHABET.index(letter) for letter in "ACGT")
SEA, NEAR, SHORE, ISLAND = range(4)
ZONE_NAMES = ("OpenSea", "OpenSea", "Shore", "Island")  # the relations of Illumina's annotation
ZONE_SHARES = np.array([0.10, 0.30, 0.25, 0.35])  # of the CpGs, as on an array that favours promoters

BASES_PER_GENE = 20_000
GENE_MARGIN = 2_000  # no transcription start nearer to a chromosome end
NEAR_BP = 5_000  # from a transcription start
SHORE_BP = 2_000  # from an island
ISLAND_SHARE = 0.8  # of the genes
BACKGROUND = np.repeat(np.array([A, C, G, T], dtype=np.uint8), [75, 53, 53, 75])  # 41 % GC
RICH = np.repeat(np.array([A, C, G, T], dtype=np.uint8), [45, 83, 83, 45])  # 65 % GC
CPG_LOSS = 0.78  # of the CpGs outside islands

MOTIF_LENGTH = 10
MOTIF_SLOT = 15  # a motif starts at base 0…5 of its slot
MOTIF_REACH = 120
MOTIF_SHARE = 0.45  # of the CpGs

PAIRED_SHARE = 0.07  # of the patients
N_FACTORS = 8

ISLAND_LOGIT, SEA_LOGIT = -2.2, 1.6
HALF_DENSITY, DENSITY_SCALE = 0.045, 0.010  # CpGs a base
TRANS_LOGIT = 1.5
CIS_LOGIT, CIS_HALVING_BP, CIS_LIMIT_BP = -0.9, 2_000, 10_000
OFFSET_SD, NOISE_SD = 0.6, 0.7  # logit


def simulate(
    store: str | Path,
    *,
    n_cpgs: int = 5000,
    n_patients: int = 250,
    n_genes: int = 800,
    window: int = 800,
    n_chromosomes: int = 10,
    n_drivers: int = 2,
    missing: float = 0.02,
    limit_bp: int = 100_000,
    seed: int = 0,
) -> None:
    """Write a simulated cohort and, beside it, its truth.

    Parameters
    ----------
    store
        Store to write; the truth goes to ``<store stem>.truth.h5`` in the same folder.
    n_cpgs, n_patients, n_genes, n_chromosomes
        Size of the cohort. About 7 % of the patients give a tumour and a normal sample, the others a tumour sample.
    window
        Bases around each CpG, even; the C stands at index ``window / 2 - 1``.
    n_drivers
        Number of (motif, driver gene) couples.
    missing
        Share of the beta values that is missing, at random.
    limit_bp
        Largest distance between CpG and transcription start that the store lists.
    seed
        Same seed and settings, same arrays.

    Raises
    ------
    ValueError
        If an argument is out of its range; nothing is written then.
    """
    settings = dict(locals())  # the arguments, as nothing else has been named yet
    del settings["store"]
    _check_settings(settings)
    rng = np.random.default_rng(seed)
    shape = (n_chromosomes, BASES_PER_GENE * -(-n_genes // n_chromosomes))
    genes = _genes(rng, n_genes, shape)
    zone = _zones(rng, genes, shape)
    genome = _genome(rng, zone)
    chrom_C, position_C = _choose_cpgs(rng, genome, zone, n_cpgs, window)
    motifs, motif_C = _plant_motifs(rng, genome, chrom_C, position_C, n_drivers, window)
    sequence_CL = genome[chrom_C[:, None], position_C[:, None] + np.arange(window) - (window // 2 - 1)]
    cpgs = pd.DataFrame(
        {
            "id": [f"cg{c:08d}" for c in range(n_cpgs)],
            "chrom": genes["chrom"].unique()[chrom_C],
            "position": position_C,
            "island": np.array(ZONE_NAMES)[zone[chrom_C, position_C]],
        }
    )
    samples = _samples(rng, n_patients)
    driver_D = rng.choice(n_genes, n_drivers, replace=False)
    expression_SG = _expression(rng, samples, n_genes, driver_D)
    effect_D = TRANS_LOGIT * rng.uniform(0.85, 1.15, n_drivers) * np.where(np.arange(n_drivers) % 2, -1, 1)
    near = gene_distances(cpgs, genes, CIS_LIMIT_BP)
    weight_N = CIS_LOGIT * 0.5 ** (np.abs(near.bp_N) / CIS_HALVING_BP)

    coupling_CD = np.where(motif_C[:, None] == np.arange(n_drivers), effect_D, 0.0)
    logit_CS = _predictable_logit(sequence_CL, expression_SG, coupling_CD, driver_D, near, weight_N)
    offset_C = rng.normal(0, OFFSET_SD, n_cpgs)
    noise_CS = rng.normal(0, NOISE_SD, logit_CS.shape)
    beta_CS = expit(logit_CS + offset_C[:, None] + noise_CS)
    beta_CS[rng.random(beta_CS.shape) < missing] = np.nan

    truth = _truth_path(store)
    with replacing(truth, "truth") as temporary, h5py.File(temporary, "w") as file:
        file.attrs["settings"] = json.dumps(settings, sort_keys=True)
        file["beta_noise_free"] = expit(logit_CS + offset_C[:, None]).astype(np.float32)
        file["beta_without_offset"] = expit(logit_CS).astype(np.float32)
        file["drivers/gene"] = driver_D
        file["drivers/motif"] = motifs
        file["drivers/effect"] = effect_D
        file["cpgs/motif"] = motif_C
        file["cpgs/island"] = zone[chrom_C, position_C] == ISLAND
        file["cpgs/offset"] = offset_C
        file["cis/cpg"] = np.repeat(np.arange(n_cpgs), np.diff(near.indptr_C))
        file["cis/gene"] = near.gene_N
        file["cis/weight"] = weight_N
    write_store(
        store,
        cpgs=cpgs,
        sequence_CL=sequence_CL,
        genes=genes,
        samples=samples,
        distances=gene_distances(cpgs, genes, limit_bp),
        expression_SG=expression_SG,
        beta_CS=beta_CS,
        units="log2(norm+1)",
        assembly="simulated",
        provenance={"source": "simulated", "settings": settings, "truth": truth.name},
    )


def read_ceiling(
    store_path: str | Path, cpg_index_C: np.ndarray, sample_index_S: np.ndarray, cpg_seen: bool
) -> np.ndarray | None:
    """Read the best possible prediction of a part of the grid.

    Parameters
    ----------
    store_path
        Complete store.
    cpg_index_C, sample_index_S
        Rows and columns, in the order wanted.
    cpg_seen
        Whether the CpGs were seen in training: only then can their offsets be known.

    Returns
    -------
    numpy.ndarray or None
        float32 [C, S]; None where the store is not simulated or its truth does not lie beside it.
    """
    provenance = Store(store_path).attributes["provenance"]
    truth = _truth_path(store_path)
    if provenance.get("source") != "simulated" or not truth.is_file():
        return None
    with h5py.File(truth, "r") as file:
        if json.loads(file.attrs["settings"]) != provenance["settings"]:
            return None
        beta_CS = file["beta_noise_free" if cpg_seen else "beta_without_offset"][:]
    return beta_CS[cpg_index_C[:, None], sample_index_S[None, :]]


def _truth_path(store: str | Path) -> Path:
    return Path(store).with_suffix(".truth.h5")


def _check_settings(settings: dict[str, Any]) -> None:
    """Raise ValueError at the first setting that is out of its range."""
    allowed = {
        "n_cpgs": (1, 10**7),
        "n_patients": (2, 9999),
        "n_chromosomes": (1, 100),
        "n_drivers": (1, 100),
        "n_genes": (max(settings["n_chromosomes"], settings["n_drivers"]), 100_000),
        "window": (40, 4000),
        "limit_bp": (1, 10**9),
        "seed": (0, 2**63),
    }
    for name, (low, high) in allowed.items():
        if not low <= settings[name] <= high:
            raise ValueError(f"{name}={settings[name]}: must lie in {low}…{high}")
    if settings["window"] % 2:
        raise ValueError(f"window={settings['window']}: must be even")
    if not 0 <= settings["missing"] < 1:
        raise ValueError(f"missing={settings['missing']}: must be at least 0 and below 1")


def _genes(rng: Generator, n_genes: int, shape: tuple[int, int]) -> pd.DataFrame:
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


def _zones(rng: Generator, genes: pd.DataFrame, shape: tuple[int, int]) -> np.ndarray:
    """Mark every base of the genome as sea, near a gene, shore or island (uint8 [chromosome, base])."""
    zone = np.full(shape, SEA, dtype=np.uint8)
    tss_G = gene_position(genes, "tss")
    chrom_G = pd.factorize(genes["chrom"])[0]
    length_G = rng.integers(500, 2_001, len(genes))
    start_G = tss_G - (length_G * rng.uniform(0.3, 0.7, len(genes))).astype(np.int64)
    has_island_G = rng.random(len(genes)) < ISLAND_SHARE
    for kind, reach, low_G, high_G, use_G in (
        (NEAR, NEAR_BP, tss_G, tss_G + 1, np.full(len(genes), True)),
        (SHORE, SHORE_BP, start_G, start_G + length_G, has_island_G),
        (ISLAND, 0, start_G, start_G + length_G, has_island_G),
    ):
        for g in np.flatnonzero(use_G):
            zone[chrom_G[g], max(low_G[g] - reach, 0) : high_G[g] + reach] = kind
    return zone


def _genome(rng: Generator, zone: np.ndarray) -> np.ndarray:
    """Draw the bases (uint8 [chromosome, base]); outside islands most CpGs have mutated to TG or CA."""
    island = zone == ISLAND
    draw = rng.integers(0, 256, zone.shape, dtype=np.uint8)
    genome = np.where(island, RICH[draw], BACKGROUND[draw])
    row, base = np.nonzero(_is_cpg(genome) & ~island[:, :-1])
    fate = rng.random(len(row))
    to_tg, to_ca = fate < CPG_LOSS / 2, (fate >= CPG_LOSS / 2) & (fate < CPG_LOSS)
    genome[row[to_tg], base[to_tg]] = T
    genome[row[to_ca], base[to_ca] + 1] = A
    return genome


def _is_cpg(bases: np.ndarray) -> np.ndarray:
    """Tell where a C is followed by a G along the last axis (one shorter than ``bases``)."""
    return (bases[..., :-1] == C) & (bases[..., 1:] == G)


def _choose_cpgs(
    rng: Generator, genome: np.ndarray, zone: np.ndarray, n_cpgs: int, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose CpGs by the shares of the zones, so far apart that no window shows a motif planted for another CpG.

    Returns row in the genome and base of the C, int64 [C] each, in the order of the genome.
    """
    half, length = window // 2, genome.shape[1]
    chrom, position = np.nonzero(_is_cpg(genome))
    inside = (position >= half - 1) & (position < length - half)
    chrom, position = chrom[inside], position[inside]
    kind = zone[chrom, position]
    weight = (ZONE_SHARES / np.maximum(np.bincount(kind, minlength=len(ZONE_SHARES)), 1))[kind]
    spacing = half + MOTIF_REACH + MOTIF_LENGTH
    free = np.full(genome.shape, True)
    chosen: list[int] = []
    for i in np.argsort(rng.exponential(size=len(weight)) / weight, kind="stable"):
        if free[chrom[i], position[i]]:
            free[chrom[i], max(position[i] - spacing, 0) : position[i] + spacing + 1] = False
            chosen.append(i)
            if len(chosen) == n_cpgs:
                chosen.sort()
                return chrom[chosen], position[chosen]
    raise ValueError(f"n_cpgs={n_cpgs}: must be at most {len(chosen)}, or n_genes larger, or window={window} smaller")


def _plant_motifs(
    rng: Generator, genome: np.ndarray, chrom_C: np.ndarray, position_C: np.ndarray, n_drivers: int, window: int
) -> tuple[list[str], np.ndarray]:
    """Write 2–4 copies of one motif (fewer where the window is too narrow) around some CpGs of the genome, in place.

    Returns the motifs as text (distinct, without CG), and the motif of each CpG, int64 [C], −1 none.
    """
    candidate = rng.choice(4**MOTIF_LENGTH, 64 * n_drivers, replace=False)[:, None] // 4 ** np.arange(MOTIF_LENGTH) % 4
    motif_DL = candidate[~_is_cpg(candidate).any(axis=1)][:n_drivers].astype(np.uint8)
    n_cpgs = len(position_C)
    motif_C = np.where(rng.random(n_cpgs) < MOTIF_SHARE, rng.integers(n_drivers, size=n_cpgs), -1)
    n_slots = min(MOTIF_REACH, window // 2 - 1) // MOTIF_SLOT  # on each side of the CG
    start = np.arange(n_slots) * MOTIF_SLOT
    slot_start = np.concatenate([-MOTIF_SLOT - start, 2 + start])
    rank = rng.random((n_cpgs, 2 * n_slots)).argsort(axis=1)
    copies_C = rng.integers(2, 5, n_cpgs)
    cpg_P, slot_P = np.nonzero((rank < copies_C[:, None]) & (motif_C >= 0)[:, None])
    jitter_P = rng.integers(0, MOTIF_SLOT - MOTIF_LENGTH + 1, len(cpg_P))
    start_P = position_C[cpg_P] + slot_start[slot_P] + jitter_P
    genome[chrom_C[cpg_P][:, None], start_P[:, None] + np.arange(MOTIF_LENGTH)] = motif_DL[motif_C[cpg_P]]
    return ["".join(ALPHABET[code] for code in motif_L) for motif_L in motif_DL], motif_C


def _samples(rng: Generator, n_patients: int) -> pd.DataFrame:
    """Draw the sample table: patients of two tissues, some with a normal sample beside the tumour."""
    n_paired = max(1, round(PAIRED_SHARE * n_patients))
    paired = np.isin(np.arange(n_patients), rng.choice(n_patients, n_paired, replace=False))
    number_S = np.repeat(np.arange(n_patients), 1 + paired)
    normal_S = np.concatenate([[False], number_S[1:] == number_S[:-1]])
    patient = pd.Series([f"TCGA-SM-{number + 1:04d}" for number in number_S])
    return pd.DataFrame(
        {
            "id": patient + np.where(normal_S, "-11", "-01"),
            "patient": patient,
            "cohort": np.where(rng.random(n_patients)[number_S] < 0.6, "TISSUE_A", "TISSUE_B"),
            "tissue_type": np.where(normal_S, "Solid Tissue Normal", "Primary Tumor"),
        }
    )


def _expression(rng: Generator, samples: pd.DataFrame, n_genes: int, driver_D: np.ndarray) -> np.ndarray:
    """Draw expression from latent factors, tissue, patient and noise (float32 [S, G], log2(norm+1), ≥ 0)."""
    patient_S = pd.factorize(samples["patient"])[0]
    n_patients = patient_S[-1] + 1
    tissue_S = np.where(samples["cohort"] == "TISSUE_A", -1.0, 1.0)
    normal_S = (samples["tissue_type"] == "Solid Tissue Normal").to_numpy()

    factor_SK = rng.normal(size=(n_patients, N_FACTORS))[patient_S] + np.outer(normal_S, rng.normal(size=N_FACTORS))
    loading_KG = rng.normal(size=(N_FACTORS, n_genes))
    loading_KG[:, driver_D] = np.eye(N_FACTORS)[:, np.arange(len(driver_D)) % N_FACTORS]
    loading_KG /= np.linalg.norm(loading_KG, axis=0)
    silent_G = rng.random(n_genes) < 0.2
    mean_G = np.where(silent_G, rng.exponential(0.2, n_genes), np.clip(rng.normal(8, 3, n_genes), 0, 16))
    sd_G = np.where(silent_G, 0.2, rng.gamma(4, 0.2, n_genes))
    mean_G[driver_D], sd_G[driver_D] = 8.0, 1.5

    varying_SG = (
        0.75 * factor_SK @ loading_KG
        + 0.35 * np.outer(tissue_S, rng.normal(size=n_genes))
        + 0.35 * rng.normal(size=(n_patients, n_genes))[patient_S]
        + 0.40 * rng.normal(size=(len(samples), n_genes))
    )
    return np.maximum(mean_G + sd_G * varying_SG, 0).astype(np.float32)


def _predictable_logit(
    sequence_CL: np.ndarray,
    expression_SG: np.ndarray,
    coupling_CD: np.ndarray,
    driver_D: np.ndarray,
    near: Distances,
    weight_N: np.ndarray,
) -> np.ndarray:
    """Add base, trans and cis terms (float64 [C, S]); expression is standardised, by at least 0.3 for silent genes."""
    density_C = (_is_cpg(sequence_CL).sum(axis=1) - 1) / (sequence_CL.shape[1] - 2)
    base_C = SEA_LOGIT + (ISLAND_LOGIT - SEA_LOGIT) * expit((density_C - HALF_DENSITY) / DENSITY_SCALE)
    standard_SG = (expression_SG - expression_SG.mean(axis=0)) / np.maximum(expression_SG.std(axis=0), 0.3)
    cis_CG = csr_array((weight_N, near.gene_N, near.indptr_C), shape=(len(sequence_CL), expression_SG.shape[1]))
    return base_C[:, None] + coupling_CD @ standard_SG[:, driver_D].T + cis_CG @ standard_SG.T
