"""Tables of one or several cohorts, as people download them → store.

Legend: C CpGs, S samples, G genes, L bases.
"""

import json
import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from methyl_lightning.data.distances import gene_distances
from methyl_lightning.data.store import UNKNOWN_POSITION, write_store
from methyl_lightning.files import InputError, scratch_folder
from methyl_lightning.prepare.gather import LazyRows, Spilled, gather, join_cpgs, measured_share, one_of_each, spill
from methyl_lightning.prepare.provenance import provenance
from methyl_lightning.prepare.samples import (
    Paired,
    common_genes,
    common_units,
    list_cohorts,
    pair,
    refuse_shared_samples,
    sample_table,
)
from methyl_lightning.prepare.selection import Selection, by_annotation, by_values, count_table
from methyl_lightning.prepare.windows import open_windows
from methyl_lightning.readers.annotation import annotate, read_landmarks
from methyl_lightning.readers.genes import locate_genes
from methyl_lightning.readers.matrices import checked_beta
from methyl_lightning.readers.probes import locate_cpgs, read_islands
from methyl_lightning.readers.progress import shown

log = logging.getLogger(__name__)
JOINS = ("union", "intersection")


def _locate(maps: dict[Path, np.ndarray], cpgs: pd.Index, base: int, minus: str) -> pd.DataFrame:
    """Place every CpG by the maps of the cohorts that have it; refuse maps that contradict each other."""
    placed: pd.DataFrame | None = None
    for path, having_C in maps.items():
        table = locate_cpgs(path, cpgs[having_C].tolist(), base, minus).set_index("id")
        log.info(f"{path}: places {int((table['position'] >= 0).sum()):,} of {len(table):,} CpGs")
        if placed is None:
            placed = table
            continue
        both = placed.index.intersection(table.index)
        one, other = placed.loc[both], table.loc[both]
        known = (one["position"] != UNKNOWN_POSITION) & (other["position"] != UNKNOWN_POSITION)
        differ = both[known & ((one["position"] != other["position"]) | (one["chrom"] != other["chrom"]))]
        if len(differ):
            cpg = differ[0]
            places = " and ".join(f"{t.loc[cpg, 'chrom']}:{t.loc[cpg, 'position']}" for t in (one, other))
            raise InputError(
                f"{path}: places {len(differ):,} CpGs elsewhere than the cohorts before it ({cpg!r} at {places}, "
                "from 0); give maps of one assembly that count from the same base"
            )
        fill = both[(one["position"] == UNKNOWN_POSITION).to_numpy()]
        placed.loc[fill] = other.loc[fill]
        placed = pd.concat([placed, table.drop(index=both)])
    assert placed is not None
    if (placed["position"] == UNKNOWN_POSITION).all():
        given = ", ".join(map(str, maps))
        raise InputError(f"{given}: gives none of the {len(cpgs):,} CpGs a position from {base}; check probe_map_base")
    return placed.loc[cpgs].rename_axis("id").reset_index()


def _having(cohorts: list[Paired], spilled: list[Spilled], cpgs: pd.Index, key: str) -> dict[Path, np.ndarray]:
    """Tell which CpGs (bool [C]) the cohorts have that name a file as their ``key``."""
    found: dict[Path, np.ndarray] = {}
    for one, file in zip(cohorts, spilled, strict=True):
        path = getattr(one.cohort, key)
        if path is not None:
            found[path] = found.get(path, False) | cpgs.isin(file.cpgs)
    return found


def tcga(
    store: str | Path,
    *,
    genes: str | Path,
    methylation: str | Path | None = None,
    expression: str | Path | None = None,
    probe_map: str | Path | None = None,
    sequences: str | Path | None = None,
    partial_sequences: bool = False,
    cohorts: Mapping[str, Mapping[str, str]] | None = None,
    cpg_join: str = "union",
    genome: str | Path | None = None,
    islands: str | Path | None = None,
    selection: Mapping[str, Any] | None = None,
    window: int = 800,
    cohort: str = "TCGA",
    assembly: str = "hg19",
    probe_map_base: int = 1,
    probe_map_minus: str = "C",
    anchor: str = "tss",
    limit_bp: int = 100_000,
    units: str = "log2(norm+1)",
) -> None:
    """Write the store of one cohort, or of several side by side, from the tables that UCSC Xena or the GDC gives.

    Samples are those with methylation and expression, in the order of the methylation table, one a patient and tissue
    (:func:`methyl_lightning.prepare.samples.pair_samples`). Everything is matched by name. Methylation is read in
    chunks and lies in a scratch folder beside the store until all is known.

    Parameters
    ----------
    store
        File to write; nothing is written if an input is refused.
    methylation, expression
        CpGs or genes × barcodes or the other way round, missing beta ``NA``; TSV, parquet, ``.h5ad`` or ``.RData``
        (:func:`methyl_lightning.readers.formats.open_matrix`).
    probe_map, probe_map_base, probe_map_minus
        Where each CpG lies; see :func:`methyl_lightning.readers.probes.locate_cpgs`.
    genes
        Where genes lie; see :func:`methyl_lightning.readers.genes.locate_genes`.
    genome, sequences, window
        Of the genome's FASTA ``window`` bases (even) around each CpG are kept, or of a FASTA with one record a probe,
        its CG in the centre; of both the latter, turned to the + strand; without either only N. See
        :func:`methyl_lightning.prepare.windows.open_windows`.
    partial_sequences
        Whether ``sequences`` may lack CpGs, which are N then.
    cohorts
        Name of each cohort → its own ``methylation``, ``expression``, ``probe_map``, ``sequences``, ``assembly``, where
        they differ from those given for all. Genes are those that every cohort has.
    cpg_join
        Of several cohorts: ``union`` of the CpGs, missing where a cohort lacks one, or ``intersection``.
    islands
        Table of the relation of CpGs to islands; see :func:`methyl_lightning.readers.probes.read_islands`.
    selection
        Settings of :class:`methyl_lightning.prepare.selection.Selection`: which CpGs are kept.
    cohort, assembly, anchor, limit_bp
        Kept in the store; the last two are those of :func:`methyl_lightning.data.distances.gene_distances`.
    units
        What the expression is told to be; see :func:`methyl_lightning.readers.units.recognise_stored`.

    Raises
    ------
    InputError
        If an input is missing, damaged or contradicts another.
    """
    settings = json.loads(json.dumps({k: v for k, v in locals().items() if k != "store"}, default=str))
    if window < 2 or window % 2 or probe_map_base not in (0, 1):
        raise InputError(f"window={window} must be even and positive, probe_map_base={probe_map_base} must be 0 or 1")
    if cpg_join not in JOINS:
        raise InputError(f"cpg_join={cpg_join!r}: must be one of {', '.join(JOINS)}")
    shared = {
        "methylation": methylation,
        "expression": expression,
        "probe_map": probe_map,
        "sequences": sequences,
        "assembly": assembly,
    }
    chosen = Selection(**(selection or {}))
    given = list_cohorts(cohorts or {cohort: {}}, shared)
    of_cohorts = [path for one in given for path in one.files()]
    of_all = [genes, genome, islands, chosen.ids, chosen.exclude, chosen.bed]
    files = list(dict.fromkeys([*of_cohorts, *(Path(file) for file in of_all if file is not None)]))
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: cannot be read (no such file); check the name")
    paired = [pair(one, units) for one in given]
    refuse_shared_samples(paired)
    units = common_units(paired)
    gene_names = common_genes(paired)
    gene_table = locate_genes(Path(genes), [paired[0].genes[name] for name in gene_names], given[0].assembly)
    with scratch_folder(Path(store), "store") as folder, ExitStack() as stack:
        spilled = []
        for k, one in enumerate(paired):
            chunks = one_of_each(one.methylation.path, checked_beta(one.methylation, one.pairs.in_methylation))
            spilled.append(spill(folder / str(k), chunks, len(one.pairs.ids)))
        names = join_cpgs(spilled, cpg_join)
        if not len(names):
            raise InputError(f"data.source.cpg_join={cpg_join}: the cohorts share no CpG; use union")
        maps = _having(paired, spilled, names, "probe_map")
        cpgs = _locate(maps, names, probe_map_base, probe_map_minus)
        if islands is not None:
            cpgs["island"] = read_islands(Path(islands), names.tolist())
            log.info(f"{islands}: knows {int((cpgs['island'] != '').sum()):,} of {len(cpgs):,} CpGs")
        probes = _having(paired, spilled, names, "sequences")
        genome = None if genome is None else Path(genome)
        windows = open_windows(
            stack, cpgs, window, genome, maps, probes, probe_map_base, probe_map_minus, partial_sequences
        )
        landmarks = None if islands is None else read_landmarks(Path(islands), probe_map_base)
        annotation_CP = annotate(cpgs, landmarks, windows.genome)
        distances = gene_distances(cpgs, gene_table, limit_bp, anchor)
        near_C = np.diff(distances.indptr_C) > 0
        log.info(f"{int(near_C.sum()):,} of {len(cpgs):,} CpGs have a gene within {limit_bp:,} bp")
        keep_C, filters = by_annotation(chosen, cpgs, distances, limit_bp, windows.off_cg_C)
        share_C = measured_share(spilled, names)
        keep_C, more_filters = by_values(chosen, share_C, keep_C)
        filters += more_filters
        log.info(count_table(filters))
        kept_C = np.flatnonzero(keep_C)
        samples = pd.concat([sample_table(one.pairs.ids, one.cohort.name) for one in paired], ignore_index=True)
        missing_share = 1 - float(share_C[kept_C].mean())
        record = provenance("tcga", settings, files, gene_table, (len(kept_C), len(samples)), missing_share)
        found = {
            "filters": [count._asdict() for count in filters],
            "sequences": windows.counts,
            "expression": {one.cohort.name: one.units._asdict() for one in paired},
            "cohorts": [_describe(one, file) for one, file in zip(paired, spilled, strict=True)],
        }
        sequence_CL = LazyRows((len(kept_C), window), lambda rows: windows.read(kept_C[rows]))
        beta_CS = gather(spilled, names[kept_C])
        tell = stack.enter_context(shown(f"{store}, writing"))
        write_store(
            store,
            cpgs=cpgs.iloc[kept_C],
            sequence_CL=sequence_CL.telling(lambda n, share: tell(0, share / 2)),
            genes=gene_table,
            samples=samples,
            distances=distances.rows(kept_C),
            expression_SG=np.concatenate([one.expression_GS.loc[gene_names].to_numpy().T for one in paired]),
            annotation_CP=annotation_CP[kept_C],
            beta_CS=beta_CS.telling(lambda n, share: tell(n, (1 + share) / 2)),
            units=units,
            assembly=paired[0].cohort.assembly,
            provenance=record | found,
        )


def _describe(cohort: Paired, file: Spilled) -> dict[str, Any]:
    return {
        "name": cohort.cohort.name,
        "cpgs": len(file.cpgs),
        "samples": len(cohort.pairs.ids),
        "genes": len(cohort.expression_GS),
        "duplicates_left_out": cohort.duplicates,
    }
