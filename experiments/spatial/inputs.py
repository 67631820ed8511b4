"""Runs, sections and the CpGs that are looked at, chosen before anything is predicted.

Legend: C CpGs, S samples of the cohort, N spots or cells, G genes.
"""

from pathlib import Path
from typing import Any, NamedTuple

import anndata
import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from experiments.spatial.checks import neighbours
from methyl_lightning.data.splits import Split, load_split
from methyl_lightning.data.store import Store
from methyl_lightning.files import InputError
from methyl_lightning.model.checkpoint import load_checkpoint
from methyl_lightning.model.grid import cpg_table
from methyl_lightning.model.module import MethylationModule

LABEL, UNLABELLED = "pathologist_label", "undetermined"
TUMOUR_LABELS = ("invasive cancer", "cancer in situ")
MATCHES = ("depth", "quantile", "library")  # ways to the training's scale
MAIN = MATCHES[0]
K = 8  # neighbours of a spot in the square grid, diagonal ones included
LEAST_COUNTS = 100  # of a spot; below, nothing can be said of it
PROMOTER_BP, SUBTYPE_BP = 1_500, 10_000
# the PAM50 genes (Parker et al. 2009), and four that mark luminal cells
PAM50_AND_LUMINAL = (
    "ACTR3B ANLN BAG1 BCL2 BIRC5 BLVRA CCNB1 CCNE1 CDC20 CDC6 CDH3 CENPF CEP55 CXXC5 EGFR ERBB2 ESR1 EXO1 FGFR4 FOXA1 "
    "FOXC1 GPR160 GRB7 KIF2C KRT14 KRT17 KRT5 MAPT MDM2 MELK MIA MKI67 MLPH MMP11 MYBL2 MYC NAT1 NDC80 NUF2 ORC6L ORC6 "
    "PGR PHGDH PTTG1 RRM2 SFRP1 SLC39A6 TMEM45B TYMS UBE2C UBE2T GATA3 KRT7 KRT18 KRT8"
)
SUBTYPE_GENES = frozenset(PAM50_AND_LUMINAL.split())


class Run(NamedTuple):
    """A trained run and the cohort that it was trained on.

    Attributes
    ----------
    name, checkpoint
        Name of the folder, and its ``best.ckpt``.
    module, store, split
        What the run has written and read.
    cpgs
        The CpGs that are looked at, indexed by id: the columns of a prediction's var, ``row`` in the store, ``part``
        (train, val, test) and ``promoter`` (bool).
    beta_CS, expression_SG
        Measured beta of these CpGs, and expression, of all samples of the cohort.
    """

    name: str
    checkpoint: Path
    module: MethylationModule
    store: Store
    split: Split
    cpgs: pd.DataFrame
    beta_CS: np.ndarray
    expression_SG: pd.DataFrame

    def subtype_cpgs(self) -> pd.DataFrame:
        """Take the CpG nearest to the start of each subtype gene, at most 10 kb away, as a table like ``cpgs``."""
        table = self.cpgs.assign(apart=self.cpgs["nearest_bp"].abs())
        table = table[table["nearest_gene"].isin(SUBTYPE_GENES) & (table["apart"] <= SUBTYPE_BP)]
        return table.sort_values("apart").drop_duplicates("nearest_gene").sort_values("nearest_gene")


def open_run(folder: Path) -> Run:
    """Open a run folder; its store lies where its settings say.

    Looked at are CpGs that were held out, those within 1.5 kb of the start of a gene, and those near subtype genes.

    Raises
    ------
    InputError
        If something is missing.
    """
    if not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no config.yaml in it; name the folder of a run")
    module = load_checkpoint(folder / "best.ckpt")
    if not module.card:
        raise InputError(f"{folder}: its checkpoint has not been tested, so it has no intervals; train again")
    cohort = Store(OmegaConf.load(folder / "config.yaml").data.store)
    split = load_split(folder / "split.json", cohort)
    table = cpg_table(cohort.cpgs, cohort.genes, cohort.distances)
    part_C = np.full(len(table), "", dtype=object)
    for name, rows in split.cpg.items():
        part_C[rows] = name
    known_C, apart_C = (table["nearest_gene"] != "").to_numpy(), table["nearest_bp"].abs().to_numpy()
    table = table.assign(row=np.arange(len(table)), part=part_C, promoter=known_C & (apart_C <= PROMOTER_BP))
    near_C = table["nearest_gene"].isin(SUBTYPE_GENES).to_numpy() & (apart_C <= SUBTYPE_BP)
    cpgs = table[(table["part"] == "test") | ((table["part"] != "") & (table["promoter"] | near_C))]
    samples = np.arange(len(cohort.samples))
    genes = cohort.genes["symbol"].to_numpy(str)
    expression_SG = pd.DataFrame(np.asarray(cohort.expression_SG), cohort.samples["id"].to_numpy(str), genes)
    return Run(
        folder.name,
        folder / "best.ckpt",
        module,
        cohort,
        split,
        cpgs,
        cohort.beta(cpgs["row"].to_numpy(), samples),
        expression_SG.loc[:, ~expression_SG.columns.duplicated()],
    )


def read_section(path: Path, genes: pd.Index) -> tuple[anndata.AnnData, int]:
    """Read a section; return it and the number of spots left out for fewer than 100 molecules of the cohort's genes.

    obs gets ``counts``, molecules of all genes; of the cohort's genes ``matched_counts``, ``distinct`` (those above 0)
    and ``distinct_around`` (above 0 in the spot or one of its 8 neighbours); and ``section``, the file's name.
    """
    try:
        data = anndata.read_h5ad(path)
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: not an AnnData file ({error}); name a section") from error
    for part, name in ((data.obsm, "spatial"), (data.obs, LABEL)):
        if name not in part:
            raise InputError(f"{path}: has no {name!r}; a section with coordinates and labels is wanted")
    matched = dense(data.X)[:, data.var_names.isin(genes)]
    kept_N = matched.sum(axis=1) >= LEAST_COUNTS
    data, matched, n_out = data[kept_N].copy(), matched[kept_N], int((~kept_N).sum())
    around_NN = neighbours(data.obsm["spatial"], K)
    data.obs["counts"] = dense(data.X).sum(axis=1)
    data.obs["matched_counts"] = matched.sum(axis=1)
    data.obs["distinct"] = (matched > 0).sum(axis=1)
    data.obs["distinct_around"] = (matched + around_NN @ matched > 0).sum(axis=1)
    data.obs["section"] = path.stem
    return data, n_out


def dense(values: Any) -> np.ndarray:
    """Return float64 values, sparse or not."""
    return (values.toarray() if hasattr(values, "toarray") else np.asarray(values)).astype(np.float64)


def log_expression(data: anndata.AnnData) -> pd.DataFrame:
    """Return log1p of 10,000 molecules a spot, [N, G]; names that occur twice are kept once."""
    values = dense(data.X)
    frame = pd.DataFrame(np.log1p(1e4 * values / values.sum(axis=1, keepdims=True)), data.obs_names, data.var_names)
    return frame.loc[:, ~frame.columns.duplicated()]
