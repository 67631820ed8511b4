"""CpGs as people name them → what the network may know of each: sequence and gene distances.

Legend: C CpGs, L bases.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from methyl_lightning.data.distances import gene_distances
from methyl_lightning.data.keys import chromosome_keys, cpg_keys
from methyl_lightning.data.store import (
    ALPHABET,
    ANNOTATION,
    UNKNOWN_POSITION,
    Distances,
    Store,
)
from methyl_lightning.files import InputError
from methyl_lightning.model.module import MethylationModule
from methyl_lightning.model.record import CPG_COLUMNS, TrainingRecord
from methyl_lightning.readers.annotation import annotate
from methyl_lightning.readers.assemblies import refuse_assembly
from methyl_lightning.readers.cpgs import PLACE, names_places, read_names, read_places
from methyl_lightning.readers.fasta import Centres, find_centres, genome_windows, open_fasta, probe_windows
from methyl_lightning.readers.probes import chromosome, plain_name
from methyl_lightning.readers.text import refuse_repeats

ALL = "all"
DEFAULT_LIMIT_BP = 100_000
UNKNOWN_BASE = ALPHABET.index("N")
LEAST_OF_STRAND = 0.2  # share of the positions, where calls of both strands are told by where they stand


class CpgSet(NamedTuple):
    """CpGs that are predicted.

    Attributes
    ----------
    table
        One row a CpG: id, chrom, position, island, training_mean, training_deviation.
    sequence_CL
        uint8 codes of ACGTN, only N where there is no sequence.
    annotation_CP
        Columns of ``methyl_lightning.data.store.ANNOTATION``, NaN where unknown.
    distances
        To the genes of the checkpoint.
    cpg_key_C, chrom_key_C
        See :class:`methyl_lightning.networks.contract.CpgFeatures`.
    notes
        What a person should know of how they were read.
    """

    table: pd.DataFrame
    sequence_CL: np.ndarray
    annotation_CP: np.ndarray
    distances: Distances
    cpg_key_C: np.ndarray
    chrom_key_C: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def position_C(self) -> np.ndarray:
        """Positions, −1 unknown."""
        return self.table["position"].to_numpy(np.int64)


def read_cpg_set(
    module: MethylationModule, cpgs: str | Path | Sequence[str] | pd.DataFrame, genome: str | Path | None
) -> CpgSet:
    """Find sequence and gene distances of CpGs.

    Parameters
    ----------
    module
        Trained module with its record.
    cpgs
        - ``all``, a sequence of probe ids, or a file of them (:func:`methyl_lightning.readers.cpgs.read_names`): CpGs
          of the training store, which the checkpoint carries.
        - a data frame with columns chrom and position (0-based, of the C on the + strand) and perhaps id, or a file of
          positions (:func:`methyl_lightning.readers.cpgs.read_places`): with the bases from ``genome``.
        - a FASTA of windows with CG in the centre; ``>id`` or ``>id chrom:position``, without a position no distances.
        - a store: all of its CpGs.
    genome
        FASTA of the checkpoint's assembly.

    Raises
    ------
    InputError
        If a CpG is unknown, its centre is not CG, or the genome is missing or of another assembly.
    """
    record = module.training_record()
    assert record is not None
    window = int(module.hparams["window"])
    if isinstance(cpgs, pd.DataFrame):
        return _placed("the table of CpGs", _check_places("the table of CpGs", cpgs), module, record, window, genome)
    if not isinstance(cpgs, str | Path):
        return _known("the list of CpGs", list(cpgs), record)
    if str(cpgs) == ALL:
        return _known("cpgs=all", record.cpgs["id"].tolist(), record)
    path = Path(cpgs)
    path = path.expanduser() if path.parts[:1] == ("~",) else path  # not ~name, which may be that of a file
    if not path.is_file():
        raise InputError(f"{path}: no such file of CpGs; give probe ids, a BED, TSV or FASTA file, a store, or {ALL}")
    suffixes = set(path.suffixes)
    if suffixes & {".h5", ".hdf5"}:
        return _of_store(Store(path), module, record, window)
    if suffixes & {".fa", ".fasta", ".fna"}:
        return _of_fasta(path, module, record, window)
    known = set(record.cpgs["id"])
    if not names_places(path, known):
        return _known(str(path), read_names(path, known), record)
    places = read_places(path)
    if genome is None and "id" in places and places["id"].isin(known).all():
        return _known(str(path), places["id"].tolist(), record)
    return _placed(str(path), _check_places(str(path), places), module, record, window, genome)


def _check_places(source: str, table: pd.DataFrame) -> pd.DataFrame:
    """Take chrom, position and id (chrom:position where there is none); refuse what is none and repeated ids."""
    for column in ("chrom", "position"):
        if column not in table:
            raise InputError(f"{source}: no column {column!r} among {', '.join(map(str, table))}; add or rename it")
    position = pd.to_numeric(table["position"], errors="coerce")
    wrong = ~position.between(0, 10**11) | (position % 1 != 0)  # more than any chromosome has bases
    if wrong.any():
        raise InputError(f"{source}: position '{table['position'][wrong].iloc[0]}' is no whole number ≥ 0; mend it")
    chrom = [chromosome(str(name)) for name in table["chrom"]]
    places = pd.DataFrame({"chrom": chrom, "position": position.astype(np.int64).to_numpy()})
    named = "id" in table and not (table["id"] == ".").all()
    ids = table["id"].astype(str).to_numpy() if named else places["chrom"] + ":" + places["position"].astype(str)
    return places.assign(id=ids, strand=table["strand"].to_numpy(str) if "strand" in table else "")


def _known(source: str, ids: list[str], record: TrainingRecord) -> CpgSet:
    known = pd.Index(record.cpgs["id"])
    ids = [name if name in known else plain_name(name) for name in ids]
    row_C = known.get_indexer(ids)
    if (row_C < 0).any():
        missing = [name for name, row in zip(ids, row_C, strict=True) if row < 0]
        raise InputError(
            f"{source}: {len(missing):,} of {len(ids):,} CpGs ({missing[0]!r}, …) are not in the training store "
            f"({known[0]!r}, …); give their positions as BED with genome=FASTA, or leave them out"
        )
    _refuse_none_or_repeats(source, ids)
    table = record.cpgs.iloc[row_C].reset_index(drop=True)
    return CpgSet(
        table,
        record.sequence_CL[row_C],
        record.annotation_CP[row_C],
        record.distances.rows(row_C),
        cpg_keys(ids),
        chromosome_keys(table["chrom"]),
    )


def _refuse_none_or_repeats(source: str, ids: list[str]) -> None:
    if not ids:
        raise InputError(f"{source}: names no CpG; give at least one")
    refuse_repeats(source, "CpG", ids)


def _described(
    source: str,
    places: pd.DataFrame,
    module: MethylationModule,
    record: TrainingRecord,
    sequence_CL: np.ndarray,
    annotation_CP: np.ndarray | None = None,
) -> CpgSet:
    """Add distances, and what training knew of CpGs at the same place or of the same name."""
    ids = places["id"].tolist()
    _refuse_none_or_repeats(source, ids)
    known = record.cpgs
    row_C = pd.Index(known["id"]).get_indexer(ids)
    located = known[known["position"] != UNKNOWN_POSITION].drop_duplicates(["chrom", "position"])
    at = pd.MultiIndex.from_frame(located[["chrom", "position"]])
    same_C = at.get_indexer(pd.MultiIndex.from_frame(places[["chrom", "position"]]))
    row_C = np.where(row_C < 0, np.where(same_C < 0, -1, located.index.to_numpy()[same_C]), row_C)
    of_training = known.iloc[row_C].reset_index(drop=True)
    unknown_C = row_C < 0
    table = places.assign(
        island=of_training["island"].mask(unknown_C, ""),
        training_mean=of_training["training_mean"].mask(unknown_C),
        training_deviation=of_training["training_deviation"].mask(unknown_C),
    )[list(CPG_COLUMNS)]
    names = [known["id"].iloc[row] if row >= 0 else name for row, name in zip(row_C, ids, strict=True)]
    settings = module.provenance["source"]["settings"]
    limit_bp, anchor = int(settings.get("limit_bp", DEFAULT_LIMIT_BP)), settings.get("anchor", "tss")
    distances = gene_distances(table, record.genes, limit_bp, anchor)
    if annotation_CP is None:
        annotation_CP = np.full((len(table), len(ANNOTATION)), np.nan, dtype=np.float32)
    annotation_CP = np.where(unknown_C[:, None], annotation_CP, record.annotation_CP[row_C])
    return CpgSet(table, sequence_CL, annotation_CP, distances, cpg_keys(names), chromosome_keys(table["chrom"]))


def _placed(
    source: str,
    places: pd.DataFrame,
    module: MethylationModule,
    record: TrainingRecord,
    window: int,
    genome: str | Path | None,
) -> CpgSet:
    annotation_CP = None
    if genome is None:
        if record.sequence_CL.any_known():
            raise InputError(f"{source}: positions need the bases around them; give genome=FASTA")
        plus = set((places["chrom"] + ":" + places["position"].astype(str))[places["strand"] == "+"])
        before_C = (places["chrom"] + ":" + (places["position"] - 1).astype(str)).isin(plus)
        places, notes = _join_strands(places, (before_C & (places["strand"] == "-")).to_numpy())
        sequence_CL = np.full((len(places), window), UNKNOWN_BASE, dtype=np.uint8)
    else:
        assembly = module.provenance["assembly"]
        if not Path(genome).is_file():
            raise InputError(f"{genome}: no such genome; give the FASTA of {assembly}")
        with open_fasta(Path(genome)) as fasta:
            refuse_assembly(fasta.path, fasta.lengths(), assembly, "the checkpoint was trained on")
            places, notes = _join_strands(places, _on_g(places, find_centres(genome_windows(fasta, places, 4))))
            sequence_CL = genome_windows(fasta, places, max(window, 4))
            annotation_CP = annotate(places, genome=fasta)
        refuse_off_cg(source, Path(genome), places, sequence_CL, assembly)
        margin = (sequence_CL.shape[1] - window) // 2
        sequence_CL = sequence_CL[:, margin : margin + window]
    return _described(source, places, module, record, sequence_CL, annotation_CP)._replace(notes=notes)


def _on_g(places: pd.DataFrame, centres: Centres) -> np.ndarray:
    """Tell which positions are those of the G, the C of strand − (bool [C]).

    Where strands are not named, positions are of both if some are at the C, some at the G, and hardly any elsewhere.
    """
    before, at, _ = centres.shares(centres.known_C)
    of_both = min(before, at) > LEAST_OF_STRAND and before + at > 1 - LEAST_OF_STRAND / 2
    strand_C = places["strand"].to_numpy(str)
    return centres.is_cg_CO[:, 0] & ~centres.on_cg_C & ((strand_C == "-") | (of_both & (strand_C != "+")))


def _join_strands(places: pd.DataFrame, minus_C: np.ndarray) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Take a call on strand − for one of the C before it, and both calls of a CpG as one; say how many."""
    if not minus_C.any():
        return places, ()
    position_C = places["position"] - minus_C
    named_C = places["id"] != places["chrom"] + ":" + places["position"].astype(str)
    ids = places["id"].where(named_C, places["chrom"] + ":" + position_C.astype(str))
    moved = places.assign(position=position_C, id=ids)
    joined = moved.drop_duplicates(["chrom", "position"]).reset_index(drop=True)
    note = (
        f"CpGs: {int(minus_C.sum()):,} of {len(places):,} positions are on strand -, where the C is the G of strand +; "
        f"both strands of {len(moved) - len(joined):,} CpGs were joined"
    )
    return joined, (note,)


def refuse_off_cg(source: str, genome: Path, places: pd.DataFrame, sequence_CL: np.ndarray, assembly: str) -> None:
    """Refuse positions that do not stand on CG: one by name, most of them by what is likely wrong."""
    centres = find_centres(sequence_CL)
    if centres.on_cg_C.all():
        return
    first = places.iloc[int(np.argmin(centres.on_cg_C))]
    if not centres.known_C.any():
        raise InputError(
            f"{source}: no position ({first['chrom']}:{first['position']}, …) has bases in {genome}; give the genome "
            f"of {assembly} with these chromosomes"
        )
    if centres.on_cg_C.sum() > len(places) / 2 or len(places) == 1:
        middle = sequence_CL.shape[1] // 2 - 1
        bases = "".join(ALPHABET[code] for code in sequence_CL[int(np.argmin(centres.on_cg_C)), middle : middle + 2])
        raise InputError(
            f"{source}: {first['id']} at {first['chrom']}:{first['position']} stands on {bases}, not CG, in "
            f"{genome.name}; give the 0-based position of the C on the + strand, or leave it out"
        )
    hint = {-1: "they look 1-based: subtract 1", 1: "add 1"}.get(
        centres.shift or 0,
        f"genome or positions are of another assembly than the checkpoint's {assembly}: give those of {assembly}",
    )
    raise InputError(f"{source}: {centres} in {genome.name}; {hint}")


def _of_fasta(path: Path, module: MethylationModule, record: TrainingRecord, window: int) -> CpgSet:
    with open_fasta(path) as fasta:
        ids = list(fasta.records.keys())
        sequence_CL = probe_windows(fasta, ids, window)
        words = [fasta.records[name].long_name.split()[1:] for name in ids]
    on_cg_C = find_centres(sequence_CL).on_cg_C
    if not on_cg_C.all():
        raise InputError(f"{path}: the centre of the window of {ids[int(np.argmin(on_cg_C))]!r} is not CG; mend it")
    places = [PLACE.fullmatch(word[0]) if word else None for word in words]
    table = pd.DataFrame(
        {
            "id": ids,
            "chrom": [chromosome(place["chrom"]) if place else "" for place in places],
            "position": [int(place["position"]) if place else UNKNOWN_POSITION for place in places],
        }
    )
    return _described(str(path), table, module, record, sequence_CL)


def _of_store(store: Store, module: MethylationModule, record: TrainingRecord, window: int) -> CpgSet:
    assembly = module.provenance["assembly"]
    if store.attributes["assembly"] != assembly:
        raise InputError(f"{store.path}: assembly {store.attributes['assembly']}, the checkpoint's is {assembly}")
    margin, odd = divmod(store.window - window, 2)
    if margin < 0 or odd:
        raise InputError(
            f"{store.path}: window {store.window}, the checkpoint needs {window}; prepare it with {window}"
        )
    sequence_CL = np.array(store.sequence_CL[:, margin : margin + window])
    places, annotation_CP = store.cpgs[["id", "chrom", "position"]], np.array(store.annotation_CP)
    return _described(str(store.path), places, module, record, sequence_CL, annotation_CP)
