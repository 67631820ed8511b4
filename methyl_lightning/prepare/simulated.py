"""A cohort with a known truth: genome, genes, expression and methylation drawn from one seed, like real cohorts.

Methylation is a sum on a scale of its own, which is the logit but flattened where hardly anything is methylated: a base
level (the CpG density around the CpG and the nearest transcription start), a trans term (a motif near the CpG × the
expression of the driver gene of that motif), a cis term (the expression of near genes), what is a CpG's own and only
its labels tell (an offset and a response to the factors behind the expression), and noise. All that is drawn for a CpG
is correlated with that of its neighbours. What is not known of own terms, and noise, is symmetric, so the sum without
them gives the best possible prediction under L1 loss (:mod:`methyl_lightning.prepare.ceiling`); what it takes lies
beside the store as ``<store stem>.truth.h5``.

The constants follow measured cohorts whose CpGs were not chosen for varying: all HM27 CpGs of chr17 in BRCA tumours,
and random HM450 CpGs in COAD tumours (``python -m experiments.simulated`` compares).

Axis letters: C CpGs, S samples, G genes, L bases, D drivers, N (CpG, gene) entries, K latent factors, H hidden factors.
"""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
from numpy.random import Generator
from scipy.sparse import csr_array

from methyl_lightning.data.distances import gene_distances, nearest_gene
from methyl_lightning.data.sealed import sealed_hdf5
from methyl_lightning.data.store import Distances, write_store
from methyl_lightning.files import replacing
from methyl_lightning.prepare.ceiling import REGION_BP, to_beta, truth_path
from methyl_lightning.prepare.simulated_genome import (
    BASES_PER_GENE,
    ISLAND,
    ISLAND_SHARE,
    ZONE_NAMES,
    choose_cpgs,
    draw_genes,
    draw_genome,
    is_cpg,
    plant_motifs,
)

PAIRED_SHARE = 0.07  # of the patients
N_FACTORS = 8
SILENT_SHARE = (0.6, 0.08)  # of the genes without and with an island: mean beta at a start × mean expression r = -.5

# base level: the mean logit falls from .4 to -3.9 as the 122 bp around a CpG hold 0 to 13 and more others (chr17)
SEA_LEVEL, DENSITY_DROP, HALF_DENSITY = 2.0, 9.0, 7.0
LOCAL_BP = 122
# islands have a mean logit of -2.7 within 2 kb of a start and of -.1 farther off (COAD); a silent gene's start has none
PROMOTER_DROP, PROMOTER_HALVING_BP = 0.35, 2_000  # a unit of the gene's mean expression
OFFSET_SD = 2.3  # between CpGs of like density logits have an sd of 2 (chr17)

# within a CpG, over samples, logits have an sd of .9 (chr17), .7 (COAD), from .5 to 1.3 (10th and 90th percentile)
SPREAD, SPREAD_SD = 0.8, 0.35  # median sd, and sd of its log
# shares of that variance; the rest is noise of each cell
RESPONSE_SHARE = 0.08  # own labels predict with r = .31 (chr17), .26 (COAD)
HIDDEN_SHARE, N_HIDDEN = 0.35, 3  # correlations of CpGs far apart have an sd of .18, .20
SHIFT_SHARE = 0.04  # and a mean of .06, .04
REGION_SHARE = 0.12  # CpGs below 100 bp apart correlate .55, 1.5 kb .18

TRANS = 0.3  # chosen: as strong as an acting gene at its start
# CpGs near a start correlate with the expression by -.09 on average, with an sd of .15 beyond chance: few genes act
CIS_GENES, CIS = 0.35, -0.3
CIS_HALVING_BP = (1_000, 3_000)  # upstream and downstream: -.01 and -.06 at 1.5 to 5 kb
CIS_LIMIT_BP = 10_000


def simulate(
    store: str | Path,
    *,
    n_cpgs: int = 5000,
    n_patients: int = 250,
    n_genes: int = 800,
    window: int = 800,
    n_chromosomes: int = 10,
    n_drivers: int = 2,
    effects: float = 1.0,
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
    effects
        How many times as strong as in real cohorts drivers and near genes act: what is planted is found sooner then.
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
    genes = draw_genes(rng, n_genes, shape)
    has_island_G = rng.random(n_genes) < ISLAND_SHARE
    genome, zone = draw_genome(rng, genes, has_island_G, shape)
    chrom_C, position_C, anchor_C = choose_cpgs(rng, genome, zone, n_cpgs, window)
    motifs, motif_C = plant_motifs(rng, genome, chrom_C, position_C, anchor_C, n_drivers, window)
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
    expression_SG, factor_SK = _expression(rng, samples, has_island_G, driver_D)
    standard_SG = (expression_SG - expression_SG.mean(axis=0)) / np.maximum(expression_SG.std(axis=0), 0.3)

    effect_D = effects * TRANS * rng.uniform(0.85, 1.15, n_drivers) * np.where(np.arange(n_drivers) % 2, -1, 1)
    coupling_CD = np.where(motif_C[:, None] == np.arange(n_drivers), effect_D, 0.0)
    cis, weight_N = _cis(rng, cpgs, genes)
    weight_N *= effects
    cis_CG = csr_array((weight_N, cis.gene_N, cis.indptr_C), shape=(n_cpgs, n_genes))
    base_C = _base_level(sequence_CL, gene_distances(cpgs, genes, 10 * PROMOTER_HALVING_BP), expression_SG.mean(axis=0))
    told_CS = base_C[:, None] + coupling_CD @ standard_SG[:, driver_D].T + cis_CG @ standard_SG.T

    spread_C1 = SPREAD * rng.lognormal(0, SPREAD_SD, (n_cpgs, 1))
    offset_C = _along_genome(rng, chrom_C, position_C, 1)[:, 0]
    response_CK = _along_genome(rng, chrom_C, position_C, N_FACTORS)
    factor_SK *= np.sqrt(RESPONSE_SHARE / N_FACTORS)
    hidden_CS = _along_genome(rng, chrom_C, position_C, N_HIDDEN) @ rng.normal(size=(N_HIDDEN, len(samples)))
    region_CS = _along_genome(rng, chrom_C, position_C, len(samples))
    noise_CS = (
        np.sqrt(SHIFT_SHARE) * rng.normal(size=len(samples))
        + np.sqrt(HIDDEN_SHARE / N_HIDDEN) * hidden_CS
        + np.sqrt(REGION_SHARE) * region_CS
        + np.sqrt(1 - RESPONSE_SHARE - SHIFT_SHARE - HIDDEN_SHARE - REGION_SHARE) * rng.normal(size=told_CS.shape)
    )
    own_CS = told_CS + OFFSET_SD * offset_C[:, None] + spread_C1 * (response_CK @ factor_SK.T)
    beta_CS = to_beta(own_CS + spread_C1 * noise_CS)
    beta_CS[rng.random(beta_CS.shape) < missing] = np.nan

    truth = truth_path(store)
    planted = {
        "level": told_CS.astype(np.float32),
        "samples/factor": factor_SK,
        "drivers/gene": driver_D,
        "drivers/effect": effect_D,
        "cpgs/motif": motif_C,
        "cpgs/island": zone[chrom_C, position_C] == ISLAND,
        "cpgs/offset": offset_C,
        "cpgs/response": response_CK,
        "cpgs/spread": spread_C1[:, 0],
        "cis/cpg": np.repeat(np.arange(n_cpgs), np.diff(cis.indptr_C)),
        "cis/gene": cis.gene_N,
        "cis/weight": weight_N,
    }

    def describe(file: h5py.File) -> None:
        file.attrs["settings"] = json.dumps(settings, sort_keys=True)
        file["drivers/motif"] = motifs
        for name, values in planted.items():
            file.create_dataset(name, values.shape, values.dtype)
        file["cpgs/offset"].attrs["sd"], file["cpgs/spread"].attrs["median"] = OFFSET_SD, SPREAD

    with replacing(truth, "truth") as temporary, sealed_hdf5(temporary, describe) as file:
        for name, values in planted.items():
            file[name][...] = values
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
        "effects": (0, 100),
        "seed": (0, 2**63),
    }
    for name, (low, high) in allowed.items():
        if not low <= settings[name] <= high:
            raise ValueError(f"{name}={settings[name]}: must lie in {low}…{high}")
    if settings["window"] % 2:
        raise ValueError(f"window={settings['window']}: must be even")
    if not 0 <= settings["missing"] < 1:
        raise ValueError(f"missing={settings['missing']}: must be at least 0 and below 1")


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


def _expression(
    rng: Generator, samples: pd.DataFrame, has_island_G: np.ndarray, driver_D: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw expression from latent factors, tissue, patient and noise.

    Returns float32 [S, G], log2(norm+1), ≥ 0, and the factors [S, K].
    """
    n_genes = len(has_island_G)
    patient_S = pd.factorize(samples["patient"])[0]
    n_patients = patient_S[-1] + 1
    tissue_S = np.where(samples["cohort"] == "TISSUE_A", -1.0, 1.0)
    normal_S = (samples["tissue_type"] == "Solid Tissue Normal").to_numpy()

    factor_SK = rng.normal(size=(n_patients, N_FACTORS))[patient_S] + np.outer(normal_S, rng.normal(size=N_FACTORS))
    loading_KG = rng.normal(size=(N_FACTORS, n_genes))
    loading_KG[:, driver_D] = np.eye(N_FACTORS)[:, np.arange(len(driver_D)) % N_FACTORS]
    loading_KG /= np.linalg.norm(loading_KG, axis=0)
    silent_G = rng.random(n_genes) < np.where(has_island_G, SILENT_SHARE[1], SILENT_SHARE[0])
    mean_G = np.where(silent_G, rng.exponential(0.2, n_genes), np.clip(rng.normal(8, 3, n_genes), 0, 16))
    sd_G = np.where(silent_G, 0.2, rng.gamma(4, 0.2, n_genes))
    mean_G[driver_D], sd_G[driver_D] = 8.0, 1.5

    varying_SG = (
        0.75 * factor_SK @ loading_KG
        + 0.35 * np.outer(tissue_S, rng.normal(size=n_genes))
        + 0.35 * rng.normal(size=(n_patients, n_genes))[patient_S]
        + 0.40 * rng.normal(size=(len(samples), n_genes))
    )
    return np.maximum(mean_G + sd_G * varying_SG, 0).astype(np.float32), factor_SK


def _base_level(sequence_CL: np.ndarray, near: Distances, mean_G: np.ndarray) -> np.ndarray:
    """Compute the level that density, nearest start and mean expression there give each CpG (float64 [C])."""
    middle, reach = sequence_CL.shape[1] // 2, min(LOCAL_BP, sequence_CL.shape[1]) // 2
    others_C = is_cpg(sequence_CL[:, middle - reach : middle + reach]).sum(axis=1) - 1
    density_C = others_C * LOCAL_BP / (2 * reach)
    gene_C, bp_C = nearest_gene(near)
    promoter_C = np.where(gene_C >= 0, mean_G[gene_C] * 0.5 ** (np.abs(bp_C) / PROMOTER_HALVING_BP), 0)
    return SEA_LEVEL - DENSITY_DROP * density_C / (density_C + HALF_DENSITY) - PROMOTER_DROP * promoter_C


def _cis(rng: Generator, cpgs: pd.DataFrame, genes: pd.DataFrame) -> tuple[Distances, np.ndarray]:
    """Choose the genes whose expression lowers the CpGs near them, and by how much: their distances, weights [N]."""
    acts_G = rng.random(len(genes)) < CIS_GENES
    acting = np.flatnonzero(acts_G)
    cis = gene_distances(cpgs, genes.iloc[acting].reset_index(drop=True), CIS_LIMIT_BP)
    cis = cis._replace(gene_N=acting[cis.gene_N])
    along_N = np.where(genes["strand"] == "-", 1, -1)[cis.gene_N] * cis.bp_N  # of the CpG, from the start
    halving_N = np.where(along_N < 0, *CIS_HALVING_BP)
    return cis, CIS * 0.5 ** (np.abs(along_N) / halving_N)


def _along_genome(rng: Generator, chrom_C: np.ndarray, position_C: np.ndarray, n: int) -> np.ndarray:
    """Draw n standard normal values a CpG that correlate by exp(−distance / ``REGION_BP``) (float64 [C, n])."""
    value_CN = rng.normal(size=(len(position_C), n))
    kept_C = np.where(np.diff(chrom_C), 0.0, np.exp(-np.abs(np.diff(position_C)) / REGION_BP))
    for c, kept in enumerate(kept_C, start=1):
        value_CN[c] = kept * value_CN[c - 1] + np.sqrt(1 - kept**2) * value_CN[c]
    return value_CN
