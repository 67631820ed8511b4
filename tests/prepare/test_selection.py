"""Each filter on CpGs whose answer is known, their counts in order, and what is refused."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from methyl_lightning.data.distances import gene_distances
from methyl_lightning.files import InputError
from methyl_lightning.prepare.selection import FilterCount, Selection, by_annotation, by_values, count_table
from methyl_lightning.readers.cpgs import in_bed

CPGS = pd.DataFrame(
    {
        "id": ["cg1", "cg2", "cg3", "cg4", "cg5", "ch6"],
        "chrom": ["chr1", "chr1", "chrX", "", "chr22", "chr1"],
        "position": [1_000, 5_000, 300, -1, 70, 1_000],
    }
)
GENES = pd.DataFrame(
    {"chrom": ["chr1", "chrX"], "start": [2_000, 10_300], "end": [3_000, 20_000], "strand": ["+", "+"]}
)
LIMIT = 10_000
DISTANCES = gene_distances(CPGS, GENES, LIMIT)
OFF_CG = np.array([False] * 5 + [True])


def kept(**settings: Any) -> list[str]:
    """Name the CpGs that a selection keeps; ``on_cg`` only where it is asked for."""
    keep_C, _ = by_annotation(Selection(**{"on_cg": False, **settings}), CPGS, DISTANCES, LIMIT, OFF_CG)
    return CPGS["id"][keep_C].tolist()


def write(path: Path, content: str) -> Path:
    path.write_bytes(gzip.compress(content.encode()) if path.suffix == ".gz" else content.encode())
    return path


def test_without_settings_only_probes_off_cg_are_dropped():
    assert kept() == CPGS["id"].tolist()
    keep_C, counts = by_annotation(Selection(), CPGS, DISTANCES, LIMIT, OFF_CG)
    assert keep_C.tolist() == [True] * 5 + [False]
    assert counts == [("all", 6, 0), ("on CG", 5, 1)]


@pytest.mark.parametrize("name", ["list.txt", "list.csv", "list.gz"])
def test_lists(tmp_path, name):
    path = write(tmp_path / name, '# of a paper\nTargetID,why\n"cg2",a b\n\ncg5 x\r\ncg99\n')
    assert kept(ids=path) == ["cg2", "cg5"]
    assert kept(exclude=str(path)) == ["cg1", "cg3", "cg4", "ch6"]


def test_autosomes():
    assert kept(autosomes=True) == ["cg1", "cg2", "cg5", "ch6"]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["chr1\t1000\t1001"], ["cg1", "ch6"]),
        (["chr1\t999\t1000"], []),
        (["1 1001 5001 name"], ["cg2"]),
        (["chr1 0 1000", "chr1 5000 5001", "chrX 300 301"], ["cg2", "cg3"]),
        (["track name=x", "#c", "", "chr22\t70\t71\tx\t0\t+"], ["cg5"]),
        (["chr1 0 9000", "chr1 10 20"], ["cg1", "cg2", "ch6"]),  # a short region inside a long one
        (["chr7 0 9000"], []),
    ],
)
def test_bed(tmp_path, lines, expected):
    path = write(tmp_path / "regions.bed", "\n".join(lines) + "\n")
    assert CPGS["id"][in_bed(path, CPGS)].tolist() == expected
    if expected:
        assert kept(bed=path) == expected


def test_bed_equals_a_plain_search(tmp_path):
    generator = np.random.default_rng(0)
    start_N = generator.integers(0, 1_000, 60)
    regions = [(f"chr{generator.integers(1, 3)}", start, start + generator.integers(1, 40)) for start in start_N]
    path = write(tmp_path / "r.bed", "".join(f"{chrom}\t{start}\t{end}\n" for chrom, start, end in regions))
    cpgs = pd.DataFrame(
        {"chrom": generator.choice(["chr1", "chr2"], 500), "position": generator.integers(0, 1_100, 500)}
    )
    expected = [
        any(chrom == c and start <= place < end for c, start, end in regions)
        for chrom, place in zip(cpgs["chrom"], cpgs["position"], strict=True)
    ]
    found = in_bed(path, cpgs)
    assert found.tolist() == expected
    assert 50 < found.sum() < 450


NEAR = {999: [], 1_000: ["cg1", "ch6"], 3_000: ["cg1", "cg2", "ch6"], 10_000: ["cg1", "cg2", "cg3", "ch6"]}


@pytest.mark.parametrize(("limit", "expected"), NEAR.items())
def test_gene_within(limit, expected):
    if expected:
        assert kept(gene_within_bp=limit) == expected
    else:
        with pytest.raises(InputError, match=f"no CpG is left by the filter 'gene within {limit} bp' of the 6"):
            kept(gene_within_bp=limit)


def test_measured():
    share_C = np.array([1.0, 0.5, 0.49, 0.0, 0.9, 0.0])
    keep_C = np.array([True, True, True, True, False, True])
    half_C, counts = by_values(Selection(min_measured=0.5), share_C, keep_C)
    assert half_C.tolist() == [True, True, False, False, False, False]
    assert counts == [FilterCount("measured in 50% of samples", 2, 3)]
    same_C, none = by_values(Selection(), share_C, keep_C)
    assert (same_C == keep_C).all() and none == []
    with pytest.raises(InputError, match="no CpG is left by the filter 'measured in 100% of samples' of the 1"):
        by_values(Selection(min_measured=1), share_C, np.arange(6) == 2)


def test_filters_count_one_after_the_other(tmp_path):
    ids = write(tmp_path / "mine.txt", "cg1\ncg2\ncg3\ncg5\n")
    cross = write(tmp_path / "cross.txt", "cg2\nch6\n")
    bed = write(tmp_path / "r.bed", "chr1\t0\t9000\n")
    settings = {"ids": ids, "exclude": cross, "autosomes": True, "bed": bed, "gene_within_bp": 2_000}
    keep_C, counts = by_annotation(Selection(**settings), CPGS, DISTANCES, LIMIT, OFF_CG)
    assert CPGS["id"][keep_C].tolist() == ["cg1"]
    assert [tuple(count) for count in counts] == [
        ("all", 6, 0),
        ("on CG", 5, 1),
        ("in mine.txt", 4, 1),
        ("not in cross.txt", 3, 1),
        ("on chromosomes 1–22", 2, 1),
        ("in r.bed", 1, 1),
        ("gene within 2,000 bp", 1, 0),
    ]
    assert json.loads(json.dumps([count._asdict() for count in counts]))[1] == {
        "filter": "on CG",
        "kept": 5,
        "dropped": 1,
    }


def test_count_table():
    counts = [FilterCount("all", 485_512, 0), FilterCount("in mine.txt", 1_200, 484_312)]
    assert count_table(counts).splitlines() == [
        "filter            kept    dropped",
        "all            485,512          0",
        "in mine.txt      1,200    484,312",
    ]


FAULTS = {
    "list of others": ({"ids": "x.txt"}, "cg98\ncg99\n", "x.txt: none of its CpGs is in the cohort .'cg1'"),
    "empty list": ({"ids": "x.txt"}, "\n# nothing\n", "x.txt: empty"),
    "empty list to drop": ({"exclude": "x.txt"}, "", "x.txt: empty"),
    "all dropped": (
        {"exclude": "x.txt"},
        "\n".join(CPGS["id"]),
        "no CpG is left by the filter 'not in x.txt' of the 6",
    ),
    "missing list": ({"exclude": "x.txt"}, None, "x.txt: cannot be read"),
    "BED without an end": ({"bed": "x.txt"}, "chr1\t5\n", "x.txt: line 1 is 'chr1 5'"),
    "BED with text": ({"bed": "x.txt"}, "#\nchr1\ta\t7\n", "x.txt: line 2 is 'chr1 a 7'"),
    "BED backwards": ({"bed": "x.txt"}, "chr1\t7\t7\n", "x.txt: line 1 is 'chr1 7 7'"),
    "BED without regions": ({"bed": "x.txt"}, "track x\n", "x.txt: no region"),
    "BED elsewhere": ({"bed": "x.txt"}, "chr9\t0\t10\n", "no CpG is left by the filter 'in x.txt'"),
    "farther than stored": ({"gene_within_bp": 10_001}, None, "gene_within_bp=10001 is farther than limit_bp=10000"),
}


@pytest.mark.parametrize(("settings", "content", "words"), FAULTS.values(), ids=FAULTS)
def test_bad_input_is_refused(tmp_path, settings, content, words):
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words) as refusal:
        kept(**{name: path if value == "x.txt" else value for name, value in settings.items()})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("settings", [{"min_measured": 1.1}, {"min_measured": -0.1}, {"gene_within_bp": -1}])
def test_bad_setting_is_named(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Selection(**settings)
