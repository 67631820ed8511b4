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
from methyl_lightning.readers.genes import gene_key, gene_keys
from methyl_lightning.readers.text import column_key, read_table

MOUSE_ID = re.compile(r"^ENSMUSG\d{11}")
MOUSE_SYMBOL = re.compile(r"^[A-Z][a-z0-9]+[a-z][a-zA-Z0-9-]*$|^mt-[A-Z]")  # Trp53, Gapdh, mt-Nd1; not TP53, C1orf112
MOUSE_SHARE = 0.5
# columns of a table of aliases in the order of trust; HGNC has alias_symbol, prev_symbol, ensembl_gene_id
ALIAS_COLUMNS = [
    re.compile(pattern)
    for pattern in (
        r"(approved_|gene_?)?symbols?|gene_?names?|id|(ensembl|entrez|ncbi)(_?(gene_?)?id)?",
        r"prev(ious)?(_symbols?)?",
        r"(alias(es)?|synonyms?)(_symbols?)?",
    )
]
# columns of var that name its genes: of scanpy, 10x, CELLxGENE, Seurat, Bioconductor, biomaRt
OTHER_NAMES = re.compile(
    r"gene_?(id|name|symbol|short_name|stable_id)s?|feature_?(id|name)|(ensembl|ensg)(_?(gene_?)?id)?|"
    r"(hgnc_|hugo_|approved_)?symbols?|external_gene_name|genes?|features?|names?"
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
    kept = [name for pattern in ALIAS_COLUMNS for name in map(str, table) if pattern.fullmatch(column_key(name))]
    if len(kept) < 2:
        wanted = "at least two of symbol, ensembl, entrez, alias are wanted"
        raise InputError(f"{path}: no gene table, its columns are {', '.join(map(str, table))}; {wanted}")
    return table[kept]


def index_genes(genes: pd.DataFrame, aliases: pd.DataFrame | None) -> dict[str, int]:
    """Map every known name to a gene of the training; ids go before symbols, symbols before aliases."""
    known: dict[str, int] = {}
    named = [(g, gene_keys(name)) for column in ("id", "symbol") for g, name in enumerate(genes[column]) if name]
    for g, keys in [(g, keys[:1]) for g, keys in named] + [(g, keys[1:]) for g, keys in named]:
        for key in keys:
            known.setdefault(key, g)
    if aliases is not None:
        own = [name for name in map(str, aliases) if ALIAS_COLUMNS[0].fullmatch(column_key(name))]
        own_R, all_R = (_keys(aliases[columns]) for columns in (own, list(aliases)))
        gene_R = [next((known[key] for key in keys if key in known), -1) for keys in own_R]
        taken = set(gene_R)  # a gene that goes by its own name is no former name or alias of another
        added: dict[str, int] = {}
        for keys, gene in zip(all_R, gene_R, strict=True):
            if gene < 0:
                gene = next((known[key] for key in keys if key in known and known[key] not in taken), -1)
            for key in keys if gene >= 0 else ():
                added.setdefault(key, gene)
        known = added | known
    return known


def _keys(aliases: pd.DataFrame) -> list[list[str]]:
    """List the names in each row of a table of aliases, of which a cell may hold several."""
    rows = aliases.itertuples(index=False)
    return [[gene_key(name) for cell in names for name in SPLIT.split(cell) if name] for names in rows]


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
    others = [column for column in map(str, var) if OTHER_NAMES.fullmatch(column_key(column))]
    columns = [list(names), *(var[column].astype(str).tolist() for column in others)]
    keys_I = ((key for name in tried for key in gene_keys(name)) for tried in zip(*columns, strict=True))
    gene_I = np.array([next((known[key] for key in keys if key in known), -1) for keys in keys_I])
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
