"""Which input gene is which gene of the training: by symbol, Ensembl id, or an alias of the gene table.

Legend: I genes of the input, G genes of the training, K genes of the training that are matched.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from methyl_lightning.files import InputError
from methyl_lightning.readers.genes import gene_key
from methyl_lightning.readers.text import read_table

MOUSE_ID = re.compile(r"^ENSMUSG\d{11}")
MOUSE_SYMBOL = re.compile(r"^[A-Z][a-z0-9]+[a-z][a-zA-Z0-9-]*$|^mt-[A-Z]")  # Trp53, Gapdh, mt-Nd1; not TP53, C1orf112
MOUSE_SHARE = 0.5
# columns of a table of aliases in the order of trust; HGNC has alias_symbol, prev_symbol, ensembl_gene_id
ALIAS_COLUMNS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(approved |gene_?)?symbols?|gene_?names?|id|(ensembl|entrez|ncbi)([_ ]?(gene[_ ]?)?id)?",
        r"prev(ious)?([_ ]symbols?)?",
        r"(alias(es)?|synonyms?)([_ ]symbols?)?",
    )
]
# columns of var that name its genes: of scanpy, 10x, CELLxGENE, Seurat, Bioconductor, biomaRt
OTHER_NAMES = re.compile(
    r"gene_?(id|name|symbol|short_name)s?|feature_?(id|name)|(ensembl|ensg)([_ .]?(gene_?)?id)?|"
    r"(hgnc_|approved_)?symbols?|external_gene_name|gene",
    re.IGNORECASE,
)
SPLIT = re.compile(r"\s*[|,;]\s*")  # between several names in a cell


class GeneMatch(NamedTuple):
    """Which genes of the input stand for which of the training.

    Attributes
    ----------
    gene_K
        Matched genes of the training, ascending.
    sum_IK
        Sparse 0/1 matrix: ``values_SI @ sum_IK`` gives [S, K], names that stand for one gene summed.
    n_genes
        Number of genes of the training.
    duplicates
        Number of input genes that were added to another one.
    """

    gene_K: np.ndarray
    sum_IK: sparse.csr_matrix
    n_genes: int
    duplicates: int

    @property
    def coverage(self) -> float:
        """Share of the training's genes that are matched."""
        return len(self.gene_K) / self.n_genes


def read_aliases(path: Path) -> pd.DataFrame:
    """Read a gene table whose columns symbol, ensembl, entrez, … name one gene a row, HGNC's own among them."""
    table = read_table(path)
    kept = [name for pattern in ALIAS_COLUMNS for name in map(str, table) if pattern.fullmatch(name)]
    if len(kept) < 2:
        wanted = "at least two of symbol, ensembl, entrez, alias are wanted"
        raise InputError(f"{path}: no gene table, its columns are {', '.join(map(str, table))}; {wanted}")
    return table[kept]


def index_genes(genes: pd.DataFrame, aliases: pd.DataFrame | None) -> dict[str, int]:
    """Map every known name to a gene of the training; ids go before symbols, symbols before aliases."""
    known: dict[str, int] = {}
    for column in ("id", "symbol"):
        for g, name in enumerate(genes[column]):
            if name:
                known.setdefault(gene_key(name), g)
    if aliases is not None:
        rows = [
            [gene_key(name) for cell in names for name in SPLIT.split(cell) if name]
            for names in aliases.itertuples(index=False)
        ]
        gene_R = [next((known[key] for key in keys if key in known), None) for keys in rows]
        added: dict[str, int] = {}
        for keys, gene in zip(rows, gene_R, strict=True):
            if gene is not None:
                for key in keys:
                    added.setdefault(key, gene)
        known = added | known
    return known


def match_genes(
    source: str, names: Sequence[str], var: pd.DataFrame, genes: pd.DataFrame, known: Mapping[str, int]
) -> GeneMatch:
    """Match the genes of an input to those of the training.

    Parameters
    ----------
    source
        What the input is called in messages.
    names
        Names of the input's genes.
    var
        Their table, in which columns such as ``gene_ids`` give other names; may have no columns.
    genes
        Gene table of the training.
    known
        Of :func:`index_genes`.

    Raises
    ------
    InputError
        If no gene matches, or the genes are those of a mouse.
    """
    refuse_mouse(source, names, genes)
    others = [column for column in map(str, var) if OTHER_NAMES.fullmatch(column)]
    columns = [list(names), *(var[column].astype(str).tolist() for column in others)]
    keys = (map(gene_key, tried) for tried in zip(*columns, strict=True))
    gene_I = np.array([next((known[key] for key in one if key in known), -1) for one in keys])
    matched_N = np.flatnonzero(gene_I >= 0)
    if not len(matched_N):
        raise InputError(
            f"{source}: none of its {len(names):,} genes ({', '.join(list(names)[:3])}, …) is known to the checkpoint "
            f"({', '.join(genes['symbol'][:3])}, …); name them by symbol or Ensembl id, or give genes=TABLE with both"
        )
    gene_K, column_N = np.unique(gene_I[matched_N], return_inverse=True)
    sum_IK = sparse.csr_matrix((np.ones(len(matched_N)), (matched_N, column_N)), shape=(len(names), len(gene_K)))
    return GeneMatch(gene_K, sum_IK, len(genes), len(matched_N) - len(gene_K))


def refuse_mouse(source: str, names: Sequence[str], genes: pd.DataFrame) -> None:
    """Refuse mouse genes by name, unless the training's are of that form, too."""

    def mouse(name: str) -> bool:
        return bool(MOUSE_ID.match(name) or MOUSE_SYMBOL.match(name))

    found = [name for name in names if mouse(name)]
    if len(found) > MOUSE_SHARE * len(names) and sum(map(mouse, genes["symbol"])) <= MOUSE_SHARE * len(genes):
        raise InputError(
            f"{source}: {len(found) / len(names):.0%} of its genes are named as in mouse ({', '.join(found[:3])}, …), "
            "the checkpoint knows human genes; give human data, or map to human orthologues first"
        )
