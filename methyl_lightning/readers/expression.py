"""Expression as people have it: AnnData, 10x files, tables; rows are samples, cells or spots and are read on demand.

Only genes are given: features of other kinds, the counters of STAR and HTSeq, spike-ins and the genes of another
species are left out, as are those without a name, and it is said how many.
Legend: S samples, I genes of the input.
"""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from methyl_lightning.files import InputError
from methyl_lightning.readers.annotated import Expression, from_anndata, open_h5ad, read_10x_folder, read_10x_h5
from methyl_lightning.readers.assemblies import species_of
from methyl_lightning.readers.formats import open_matrix, refuse_unread, samples_are_rows
from methyl_lightning.readers.genes import GENOME_PREFIX, gene_key
from methyl_lightning.readers.matrices import read_all
from methyl_lightning.readers.text import EXCEL_DATE, MISSING, column_key

NO_GENE = re.compile(
    r"N_(unmapped|multimapping|noFeature|ambiguous)|__\w+|g?(ERCC|SIRV)[-_]?\d{3,5}|"
    r"no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique|unmapped|\*",
    re.IGNORECASE,
)
TYPE_COLUMN = re.compile(r"(feature|gene)_?(bio)?types?|modality|assay|type")
GENE_TYPES = ("gene expression", "gex", "gene", "rna")
# of one sample, as the GDC (STAR), RSEM, salmon, kallisto, StringTie and Cufflinks write them; the first is taken
COUNTED = ("unstranded", "expected_count", "NumReads", "est_counts", "TPM", "FPKM")
LOOKED_AT = 5_000  # names by which axes are told
OTHER_TYPES = re.compile(
    r"antibody|adt|protein(?![_ ]?coding)|crispr|multiplex|hashtag|hto|peaks|atac|spike|custom", re.IGNORECASE
)


@contextmanager
def open_expression(
    expression: str | Path | anndata.AnnData, layer: str | None, raw: bool, known: Collection[str], assembly: str = ""
) -> Iterator[Expression]:
    """Open expression for reading; a file on disk stays there.

    Parameters
    ----------
    expression
        An AnnData, or a path: ``.h5ad``; 10x ``.h5``; a folder with a 10x ``matrix.mtx``; or a table of which either
        axis are genes (:func:`methyl_lightning.readers.formats.open_matrix`).
    layer, raw
        Of an AnnData: the layer, or ``.raw``, to take instead of X.
    known
        Keys of the genes that the checkpoint knows (:func:`methyl_lightning.readers.genes.gene_key`); they tell which
        axis the genes are on.
    assembly
        Of the checkpoint or the cohort: of two genomes in one file, that of this species is taken.

    Raises
    ------
    InputError
        If the input is missing, damaged or of another kind.
    """
    if layer is not None and raw:
        raise InputError(f"layer={layer}, raw=true: name one of them")
    opened = _open(expression, None if layer is None else str(layer), raw, known, assembly)
    yield _genes_alone(opened, known, assembly)


def _open(
    expression: str | Path | anndata.AnnData, layer: str | None, raw: bool, known: Collection[str], assembly: str
) -> Expression:
    if isinstance(expression, anndata.AnnData):
        return _oriented(from_anndata(expression, layer, raw), known)
    path = Path(expression)
    path = path.expanduser() if path.parts[:1] == ("~",) else path  # not ~name, which may be that of a file
    if not path.exists():
        raise InputError(f"{path}: no such expression file; check expression=")
    refuse_unread(path)
    if path.suffix == ".h5ad":
        return _oriented(open_h5ad(path, layer, raw), known)
    if layer is not None or raw:
        raise InputError(f"{path}: layer= and raw= belong to .h5ad files; leave them out")
    if path.is_dir():
        return read_10x_folder(path)
    if path.suffix in (".h5", ".hdf5"):
        return read_10x_h5(path, assembly)
    return _from_table(path, known)


def _from_table(path: Path, known: Collection[str]) -> Expression:
    matrix = open_matrix(path, "gene", known=known)
    first = matrix.layout.header[0] if matrix.layout else ""
    if NO_GENE.fullmatch(first) or gene_key(first) in known:
        raise InputError(
            f"{path}: its first line is already a gene ({first}); add a header with the name of the sample"
        )
    counted = next((name for name in COUNTED if name in matrix.columns), None)
    if counted is not None:
        matrix = matrix._replace(columns=[counted])
    table = read_all(matrix)
    samples = table.columns if counted is None else [path.name.split(".")[0]]
    obs, var = pd.DataFrame(index=pd.Index(samples)), pd.DataFrame(index=table.index)
    if matrix.described:
        var = pd.DataFrame({name: cells.to_numpy() for name, cells in matrix.description().items()}, index=table.index)
    return Expression(str(path), obs, var, table.to_numpy().T, {}, {}, "log2")


def _oriented(expression: Expression, known: Collection[str]) -> Expression:
    """Exchange the axes of an AnnData whose observations are genes."""
    obs, var = (table.index[:LOOKED_AT].astype(str).tolist() for table in (expression.obs, expression.var))
    return expression.turned() if samples_are_rows(lambda: var, obs, known) else expression


def _genes_alone(expression: Expression, known: Collection[str], assembly: str) -> Expression:
    """Leave out what is no gene, and the genes of another species."""
    var = expression.var
    names = var.index.astype(str)
    counter_I = names.str.fullmatch(NO_GENE)
    dated_I = names.str.fullmatch(EXCEL_DATE)
    dates = f"dates that Excel made of names ({', '.join(names[dated_I][:2])}, once MARCHF1, SEPTIN2 or the like)"
    left_out = {
        "without a name": names.isin(MISSING),
        "counters and spike-ins": counter_I,
        dates: dated_I,
        **_other_features(var),
    }
    kept_I = ~np.any(list(left_out.values()), axis=0)
    genome_I = _genomes(var, names)
    if len(genomes := sorted(set(genome_I[kept_I]))) > 1:
        chosen = _choose_genome(expression.source, genomes, genome_I, names, known, assembly)
        left_out[f"genes of another genome than {chosen}"] = kept_I & (genome_I != chosen)
        kept_I &= genome_I == chosen
    if kept_I.all():
        return expression
    if not kept_I.any():
        raise InputError(f"{expression.source}: holds no genes, but {_listed(left_out)}; give gene expression")
    note = f"genes: {int((~kept_I).sum()):,} of {len(names):,} rows are none and left out: {_listed(left_out)}"
    return expression._replace(var=var[kept_I], kept_I=np.flatnonzero(kept_I), notes=(*expression.notes, note))


def _listed(left_out: dict[str, np.ndarray]) -> str:
    return ", ".join(f"{int(rows_I.sum()):,} {what}" for what, rows_I in left_out.items() if rows_I.any())


def _other_features(var: pd.DataFrame) -> dict[str, np.ndarray]:
    """Find the features that are said to be of another kind than genes."""
    other: dict[str, np.ndarray] = {}
    for column in (name for name in var if TYPE_COLUMN.fullmatch(column_key(str(name)))):
        kind_I = var[column].astype(str).str.strip().replace(MISSING, "")
        gene_I = kind_I.str.lower().isin(GENE_TYPES).to_numpy()
        if not gene_I.any():  # other words are used, or there are none
            gene_I = ~kind_I.str.contains(OTHER_TYPES).to_numpy()
        gene_I |= (kind_I == "").to_numpy()
        for kind in kind_I[~gene_I].unique():
            other.setdefault(f"features of {kind!r}", (kind_I == kind).to_numpy())
    return other


def _genomes(var: pd.DataFrame, names: pd.Index) -> np.ndarray:
    """Tell the genome of each gene, by the prefix of its name or else a column; "" where neither says."""
    prefix_I = names.to_series().str.extract(GENOME_PREFIX)["genome"].fillna("")
    if "genome" in var and prefix_I.nunique() < 2:
        return var["genome"].astype(str).to_numpy(object)
    return prefix_I.to_numpy(object)


def _choose_genome(
    source: str, genomes: list[str], genome_I: np.ndarray, names: pd.Index, known: Collection[str], assembly: str
) -> str:
    """Choose the genome of the checkpoint's species, or else the one whose genes it knows."""
    fitting = [genome for genome in genomes if species_of(genome) and species_of(genome) == species_of(assembly)]
    if not species_of(assembly):
        n_known = {genome: sum(gene_key(name) in known for name in names[genome_I == genome]) for genome in genomes}
        fitting = [genome for genome in genomes if n_known[genome] and n_known[genome] == max(n_known.values())]
    if len(fitting) != 1:
        of = f"the assembly {assembly}" if assembly else "an assembly that is not known"
        raise InputError(f"{source}: has genes of {', '.join(genomes)}, wanted are those of {of}; keep one genome")
    return fitting[0]
