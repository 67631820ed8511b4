"""Windows from a small genome against plain slicing, positions that are off and what is said of them, and hg19."""

import errno
import gzip
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from methyl_lightning.data.store import ALPHABET, encode_sequences
from methyl_lightning.files import InputError
from methyl_lightning.prepare.windows import (
    orient,
    refuse_off_centre,
    refuse_wrong_positions,
    refuse_wrong_probes,
    reverse_complement,
)
from methyl_lightning.readers import assemblies
from methyl_lightning.readers.fasta import find_centres, genome_windows, open_fasta, probe_windows
from methyl_lightning.readers.probes import locate_cpgs

GENERATOR = np.random.default_rng(3)
# as Ensembl, UCSC and RefSeq name them; lower case, N and another letter among the bases
NAMES = {"chr1": "1 dna:chromosome", "chr2": "chr2", "chrX": "NC_000023.10 Homo sapiens", "chrM": "MT"}
GENOME = {chrom: "".join(GENERATOR.choice(list("ACGTacgtCGN"), 700)) for chrom in NAMES}
GENOME["chr2"] = "CG" + GENOME["chr2"][2:300] + "R" + GENOME["chr2"][301:-2] + "cg"


def bgzip(content: bytes) -> bytes:
    """Zip in blocks as htslib does: many members, the last one empty."""
    blocks = [content[first : first + 1_000] for first in range(0, len(content), 1_000)]
    return b"".join(gzip.compress(block) for block in [*blocks, b""])


@pytest.fixture(params=["fa", "fa.gz", "fa.bgz"])
def genome(request, tmp_path) -> Path:
    path = tmp_path / f"genome.{request.param}"
    lines = [f">{NAMES[chrom]}\n" + "\n".join(chunks(bases)) for chrom, bases in GENOME.items()]
    content = ("\n".join(lines) + "\n").encode()
    path.write_bytes({"fa": bytes, "fa.gz": gzip.compress, "fa.bgz": bgzip}[request.param](content))
    return path


@pytest.fixture
def plain(tmp_path) -> Path:
    path = tmp_path / "plain.fa"
    path.write_text("".join(f">{chrom}\n{bases}\n" for chrom, bases in GENOME.items()))
    return path


def chunks(bases: str) -> list[str]:
    return [bases[first : first + 60] for first in range(0, len(bases), 60)]


def cg_positions(strand: str = "+") -> pd.DataFrame:
    """List every CG of the genome, 0-based, of the C on the + strand, in random order."""
    found = [
        (chrom, place)
        for chrom, bases in GENOME.items()
        for place in range(len(bases) - 1)
        if bases[place : place + 2].upper() == "CG"
    ]
    shuffled = [found[row] for row in GENERATOR.permutation(len(found))]
    table = pd.DataFrame(shuffled, columns=["chrom", "position"])
    return table.assign(id=[f"cg{row}" for row in range(len(table))], strand=strand)


def naive(chrom: str, position: int, window: int) -> str:
    """Take the window base by base."""
    start = position - (window - 2) // 2
    bases = GENOME[chrom].upper().replace("R", "N")
    return "".join(bases[place] if 0 <= place < len(bases) else "N" for place in range(start, start + window))


def text(codes: np.ndarray) -> str:
    return "".join(ALPHABET[code] for code in codes)


@pytest.mark.parametrize("window", [2, 4, 122, 800])
def test_windows_equal_plain_slices(genome, window):
    cpgs = cg_positions()
    assert {("chr2", 0), ("chr2", 698)} <= set(zip(cpgs["chrom"], cpgs["position"], strict=True))
    with open_fasta(genome) as fasta:
        sequence_CL = genome_windows(fasta, cpgs, window)
    assert sequence_CL.shape == (len(cpgs), window) and sequence_CL.dtype == np.uint8
    expected = [naive(chrom, place, window) for chrom, place in zip(cpgs["chrom"], cpgs["position"], strict=True)]
    assert [text(codes) for codes in sequence_CL] == expected
    assert {text(codes) for codes in sequence_CL[:, window // 2 - 1 : window // 2 + 1]} == {"CG"}
    assert sorted(path.name for path in genome.parent.iterdir()) == [genome.name]


def test_windows_in_chunks_equal_windows_at_once(plain, monkeypatch):
    cpgs = cg_positions()
    with open_fasta(plain) as fasta:
        whole_CL = genome_windows(fasta, cpgs, 50)
        parts = [genome_windows(fasta, cpgs[first : first + 7], 50) for first in range(0, len(cpgs), 7)]
        monkeypatch.setattr("methyl_lightning.readers.fasta.CHUNK", 3)
        assert (genome_windows(fasta, cpgs, 50) == whole_CL).all()
    assert (np.concatenate(parts) == whole_CL).all()


def test_what_lies_outside_the_genome_is_n(plain):
    cpgs = pd.DataFrame({"chrom": ["", "chr7", "chr1", "chr1"], "position": [-1, 5, 700, 10**6]})
    with open_fasta(plain) as fasta:
        sequence_CL = genome_windows(fasta, cpgs, 6)
    assert {text(codes) for codes in sequence_CL} == {"NNNNNN"}
    centres = find_centres(sequence_CL)
    assert not centres.known_C.any() and not centres.on_cg_C.any() and not centres.off_cg_C.any()


def test_the_name_as_it_is_wins_over_another_spelling(tmp_path):
    path = tmp_path / "both.fa"
    path.write_text(">chrM\nTTCGTT\n>chrMT\nAACGAA\n")  # UCSC's hg19 holds two mitochondria
    with open_fasta(path) as fasta:
        sequence_CL = genome_windows(fasta, pd.DataFrame({"chrom": ["chrM"], "position": [2]}), 6)
    assert text(sequence_CL[0]) == "TTCGTT"


@pytest.mark.parametrize(
    ("bases", "known", "at"),
    [
        ("ACGA", True, [False, True, False]),
        ("CGCG", True, [True, False, True]),
        ("CGAA", True, [True, False, False]),
        ("ANGA", False, [False, False, False]),
        ("NCGN", True, [False, True, False]),
        ("TTACGATT", True, [False, True, False]),
        ("TTTACGTT", True, [False, False, True]),
        ("CG", True, [False, True, False]),
    ],
)
def test_centres(bases, known, at):
    centres = find_centres(encode_sequences([bases]))
    assert (centres.known_C.tolist(), centres.is_cg_CO.tolist()) == ([known], [at])
    assert centres.off_cg_C.tolist() == [known and not at[1]]


def test_centres_are_counted():
    centres = find_centres(encode_sequences(["ACGA"] * 5 + ["CGAA"] * 2 + ["AACG", "AAAA", "ANNA", "NNNN"]))
    assert centres.counts() == {"positions_with_bases": 9, "cg_at_-1": 2, "cg_at_0": 5, "cg_at_+1": 1}
    assert str(centres) == "CG is found at offset -1, 0, +1 of 2, 5, 1 of 9 positions"


def write_map(path: Path, cpgs: pd.DataFrame, shift: int) -> Path:
    """Write a probe map whose positions are shifted against the 0-based ones of the C."""
    rows = [
        f"{row.id}\t{row.chrom}\t{row.position + shift}\t{row.strand}\n" for row in cpgs.itertuples() if row.position
    ]
    path.write_text("#id\tchrom\tchromStart\tstrand\n" + "".join(rows))
    return path


def check(genome: Path, probe_map: Path, ids: list[str], base: int, minus: str = "C") -> None:
    cpgs = locate_cpgs(probe_map, ids, base, minus)
    with open_fasta(genome) as fasta:
        centres = find_centres(genome_windows(fasta, cpgs, 4))
        refuse_wrong_positions(fasta, probe_map, cpgs, centres, base, minus)


@pytest.mark.parametrize(
    ("shift", "base", "words"),
    [
        (0, 0, None),
        (1, 1, None),
        (1, 0, "look 1-based, not 0-based: set probe_map_base=1"),
        (0, 1, "look 0-based, not 1-based: set probe_map_base=0"),
        (2, 1, "with probe_map_base=1 they are off by +1: give the position of the C"),
        (-1, 0, "with probe_map_base=0 they are off by -1: give the position of the C"),
        (5, 0, "another assembly"),
    ],
)
def test_shifted_map_is_named(plain, tmp_path, shift, base, words):
    cpgs = cg_positions()
    probe_map = write_map(tmp_path / "map.tsv", cpgs, shift)
    if words is None:
        check(plain, probe_map, cpgs["id"].tolist(), base)
        return
    with pytest.raises(InputError) as refusal:
        check(plain, probe_map, cpgs["id"].tolist(), base)
    message = str(refusal.value)
    assert words in message and "map.tsv" in message and "plain.fa" in message and "\n" not in message
    assert "at offset -1, 0, +1 of " in message


def test_counts_in_the_message_are_those_of_the_genome(plain, tmp_path):
    cpgs = cg_positions()
    cpgs = cpgs[cpgs["position"] > 0]
    before, at, after = 0, 0, 0
    known = 0
    for chrom, place in zip(cpgs["chrom"], cpgs["position"] + 1, strict=True):
        centre = naive(chrom, place, 4)
        known += "N" not in centre[1:3]
        if "N" not in centre[1:3]:
            before, at, after = before + (centre[:2] == "CG"), at + (centre[1:3] == "CG"), after + (centre[2:] == "CG")
    probe_map = write_map(tmp_path / "map.tsv", cpgs, 1)
    with pytest.raises(InputError, match=rf"of {before}, {at}, {after} of {known} positions"):
        check(plain, probe_map, cpgs["id"].tolist(), 0)
    assert before > 50 and after > 0 and known < len(cpgs)


def test_minus_strand_by_its_g(plain, tmp_path):
    cpgs = cg_positions()
    cpgs["strand"] = np.where(np.arange(len(cpgs)) % 2, "-", "+")
    by_g = cpgs.assign(position=cpgs["position"] + (cpgs["strand"] == "-"))
    ids = cpgs["id"].tolist()
    by_g_map = write_map(tmp_path / "by_g.tsv", by_g, 0)
    by_c_map = write_map(tmp_path / "by_c.tsv", cpgs, 0)
    with pytest.raises(InputError, match=r"the position of the G: set probe_map_minus=G"):
        check(plain, by_g_map, ids, 0)
    check(plain, by_g_map, ids, 0, "G")
    check(plain, by_c_map, ids, 0, "C")
    with pytest.raises(InputError, match=r"the position of the C: set probe_map_minus=C"):
        check(plain, by_c_map, ids, 0, "G")
    right = locate_cpgs(by_g_map, ids, 0, "G")
    known = right["position"] >= 0
    assert known.sum() > 100
    assert right.loc[known, "position"].tolist() == cpgs.loc[known.to_numpy(), "position"].tolist()


def test_few_positions_off_cg_are_counted_and_not_refused(plain, tmp_path, caplog):
    caplog.set_level("INFO")
    cpgs = cg_positions()
    off = ("chr1", next(place for place in range(1, 600) if naive("chr1", place, 2) == "AT"))
    cpgs.loc[0, ["chrom", "position"]] = off
    probe_map = write_map(tmp_path / "map.tsv", cpgs, 1)
    check(plain, probe_map, cpgs["id"].tolist(), 1)
    with open_fasta(plain) as fasta:
        centres = find_centres(genome_windows(fasta, cpgs, 4))
    assert np.flatnonzero(centres.off_cg_C).tolist() == [0]
    (said,) = caplog.messages
    assert re.search(
        rf"map.tsv: CG is found .* of \d+, {len(cpgs) - 2}, \d+ of {len(cpgs) - 1} positions in plain.fa$", said
    )


def test_map_of_other_chromosomes_is_named(plain, tmp_path):
    cpgs = cg_positions().assign(chrom="chr9")
    probe_map = write_map(tmp_path / "map.tsv", cpgs, 1)
    with pytest.raises(InputError, match=r"plain.fa: no position of .*map.tsv has bases in it .*chr1, .*chr9"):
        check(plain, probe_map, cpgs["id"].tolist(), 1)


@pytest.mark.parametrize(("base", "minus"), [(2, "C"), (1, "c")])
def test_bad_setting_of_a_map(tmp_path, base, minus):
    probe_map = write_map(tmp_path / "map.tsv", cg_positions(), 1)
    with pytest.raises(InputError, match=f"probe_map_base={base}.*probe_map_minus='{minus}'"):
        locate_cpgs(probe_map, ["cg1"], base, minus)


PROBES = {"a": "TTACGATT", "b": "ttccgaan", "ch1": "TTACAATT", "d": "AACGTT"}


@pytest.fixture
def probes(tmp_path) -> Path:
    path = tmp_path / "probes.fa"
    path.write_text("".join(f">{name} a probe\n{bases}\n" for name, bases in PROBES.items()))
    return path


def test_probe_windows_are_cut_around_the_centre(probes):
    with open_fasta(probes) as fasta:
        sequence_CL = probe_windows(fasta, ["d", "b", "a", "ch1"], 6)
    assert [text(codes) for codes in sequence_CL] == ["AACGTT", "TCCGAA", "TACGAT", "TACAAT"]
    centres = find_centres(sequence_CL)
    assert centres.off_cg_C.tolist() == [False, False, False, True]
    refuse_wrong_probes(probes, centres)
    with pytest.raises(InputError, match=r"probes.fa: .*'ch1' is not CG"):
        refuse_off_centre(probes, ["d", "b", "a", "ch1"], sequence_CL)


@pytest.mark.parametrize(
    ("name", "words"), [("c", "no sequence of probe 'c'"), ("short", "has 4 bases"), ("odd", "has 7")]
)
def test_probe_without_a_fitting_record_is_named(probes, name, words):
    probes.write_text(probes.read_text() + ">short\nACGT\n>odd\nTTACGAT\n")
    with open_fasta(probes) as fasta, pytest.raises(InputError, match=f"probes.fa: .*{words}"):
        probe_windows(fasta, ["a", name], 6)


@pytest.mark.parametrize(("bases", "words"), [("TCGAAT", "before"), ("TTACGT", "after"), ("TTAAAT", "not at")])
def test_probes_off_centre_are_named(tmp_path, bases, words):
    centres = find_centres(encode_sequences([bases] * 4 + ["TTCGTT"] * 3))
    with pytest.raises(InputError, match=f"p.fa: the centre of 3 of 7 records is CG, it stands.* {words}"):
        refuse_wrong_probes(tmp_path / "p.fa", centres)
    refuse_wrong_probes(tmp_path / "p.fa", find_centres(encode_sequences([bases] * 3 + ["TTCGTT"] * 4)))


def test_reverse_complement_is_its_own_inverse():
    sequence_CL = encode_sequences(["AACGTG", "ACCGNT"])
    assert [text(codes) for codes in reverse_complement(sequence_CL)] == ["CACGTT", "ANCGGT"]
    assert (reverse_complement(reverse_complement(sequence_CL)) == sequence_CL).all()


def test_probes_are_turned_to_the_strand_of_the_genome():
    genome = ["AACGTG", "AACGTG", "AACGTG", "NNNNNN", "AACGTT", "NACGTG"]
    found = ["AACGTG", "CACGTT", "TTCGTG", "AACGTG", "AACGTT", "CACGTA"]
    turned_CL, counts = orient(encode_sequences(found), encode_sequences(genome))
    assert [text(codes) for codes in turned_CL] == ["AACGTG", "AACGTG", "TTCGTG", "AACGTG", "AACGTT", "TACGTG"]
    assert counts == {"forward": 2, "turned": 2, "different": 1, "not_compared": 1}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.fa", None),
        ("missing.fa.gz", None),
        ("twice.fa", b">a\nACGT\n>a\nACGT\n"),
        ("empty.fa", b""),
        ("text.fa.gz", b">a\nACGT\n"),
        ("cut.fa.gz", gzip.compress(b">a\nACGT\n" * 100, mtime=0)[:-9]),
        ("ragged.fa", b">a\nACGT\nACGTACGT\nACGT\n"),
    ],
)
def test_bad_fasta_is_refused(tmp_path, name, content):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=name) as refusal, open_fasta(path):
        pass
    assert "\n" not in str(refusal.value)
    assert sorted(tmp_path.iterdir()) == before


def test_no_room_to_unpack(tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "genome.fa.gz"
    path.write_bytes(gzip.compress(b">chr1\nACGT\n"))
    monkeypatch.setattr("methyl_lightning.readers.fasta.gzip.GzipFile.read", full)
    words = r"genome.fa.gz: no room to unpack it in .*; name a larger folder in TMPDIR"
    with pytest.raises(InputError, match=words), open_fasta(path):
        pass


DATA = Path(os.environ.get("METHYL_LIGHTNING_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
ANNOTATION = DATA / "annotation"


@pytest.mark.real_data
def test_hm450_probes_stand_on_cg_in_hg19(tmp_path):
    if not ANNOTATION.is_dir():
        pytest.skip(f"{ANNOTATION} is not there; METHYL_LIGHTNING_DATA names the folder of the public cohorts")
    probe_map = ANNOTATION / "hm450_probe_annotation_hg19.parquet"
    genome = ANNOTATION / "hg19_chr22_1-22000000.fa.gz"
    positions = pd.read_parquet(probe_map)
    ids = positions["probe"].tolist()
    cpgs = locate_cpgs(probe_map, ids, base=1)
    with open_fasta(genome) as fasta:
        centres = find_centres(genome_windows(fasta, cpgs, 4))
        inside_CL = genome_windows(fasta, cpgs[centres.known_C], 800)
        refuse_wrong_positions(fasta, probe_map, cpgs, centres, base=1)
    assert len(cpgs) == 485_512
    assert centres.counts() == {"positions_with_bases": 1_491, "cg_at_-1": 0, "cg_at_0": 1_480, "cg_at_+1": 0}
    assert cpgs.loc[centres.off_cg_C, "id"].str.startswith("ch.").all() and centres.off_cg_C.sum() == 11
    is_cg_C = (inside_CL[:, 399:401] == [ALPHABET.index("C"), ALPHABET.index("G")]).all(axis=1)
    assert is_cg_C.sum() == 1_480

    shifted = tmp_path / "shifted.parquet"
    lying = positions[centres.known_C].assign(pos_hg19=lambda table: table["pos_hg19"] - 1)
    lying.to_parquet(shifted)
    words = r"offset -1, 0, \+1 of 76, 0, 1,480 of 1,491 .*look 0-based, not 1-based: set probe_map_base=0"
    with pytest.raises(InputError, match=words):
        check(genome, shifted, lying["probe"].tolist(), base=1)
    check(genome, shifted, lying["probe"].tolist(), base=0)
    lying.assign(pos_hg19=lying["pos_hg19"] + 5_000).to_parquet(shifted)
    with pytest.raises(InputError, match="another assembly"):
        check(genome, shifted, lying["probe"].tolist(), base=1)


def test_genome_of_another_assembly_is_told_by_its_length(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(assemblies, "LENGTHS", {"hg19": {"chr1": 400}, "hg38": {"chr1": 300}})
    of = "the checkpoint was trained on"
    (tmp_path / "genome.fa").write_text(f">1\n{'ACG' * 100}\n")
    with open_fasta(tmp_path / "genome.fa") as fasta:
        assemblies.refuse_assembly(fasta.path, fasta.lengths(), "hg38", of)
        with pytest.raises(InputError, match="is hg38 by the length of chr1, the checkpoint was trained on hg19"):
            assemblies.refuse_assembly(fasta.path, fasta.lengths(), "hg19", of)
