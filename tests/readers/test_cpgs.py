"""CpGs as people list them: the same names and positions from every kind of file."""

from pathlib import Path

import pytest

from methyl_lightning.files import InputError
from methyl_lightning.readers.cpgs import names_places, read_names, read_places

KNOWN = {"cg00000029", "cg00000108", "cg00000109"}
NAMES = sorted(KNOWN)
LISTS = {
    "plain": "cg00000029\ncg00000108\ncg00000109\n",
    "UTF-8 mark, CRLF, blank lines": "\ufeffcg00000029\r\n\r\ncg00000108\r\ncg00000109\r\n",
    "quotes": '"cg00000029"\n"cg00000108"\n"cg00000109"\n',
    "comments": "# cross-reactive probes (Chen et al.)\n#\ncg00000029\ncg00000108\ncg00000109",
    "header": "TargetID\ncg00000029\ncg00000108\ncg00000109\n",
    "header of any name": "Composite Element REF\tscore\ncg00000029\t1\ncg00000108\t2\ncg00000109\t3\n",
    "write.csv of a vector": '"","x"\n"1","cg00000029"\n"2","cg00000108"\n"3","cg00000109"\n',
    "write.table of a vector": '"x"\n"1" "cg00000029"\n"2" "cg00000108"\n"3" "cg00000109"\n',
    "later column": "gene,probe,p\nTP53,cg00000029,.1\n,cg00000108,.2\nMYC,cg00000109,.3\n",
    "name and a number": "cg00000029\t1021\ncg00000108\t17\ncg00000109\t5\n",
    "EPICv2": "cg00000029_TC21\ncg00000108_BC21\ncg00000109_TO11\n",
    "manifest": "Illumina,,\n[Heading],,\nDate,x,\n[Assay],,\nIlmnID,Name,CHR\n"
    "cg00000029_TC21,cg00000029,16\ncg00000108_BC21,cg00000108,3\ncg00000109_TC11,cg00000109,3\n[Controls],,\n21,x,y\n",
    "one line": "cg00000029, cg00000108,cg00000109",
    "one line with blanks": "cg00000029 cg00000108\tcg00000109\n",
    "semicolons": "cg00000029;cg00000108;cg00000109\n",
    "CSV with semicolons": "probe;p\ncg00000029;0,05\ncg00000108;0,1\ncg00000109;1\n",
    "vector of R": 'ids <- c("cg00000029", "cg00000108",\n         "cg00000109")\n',
    "JSON": '["cg00000029", "cg00000108", "cg00000109"]\n',
    "CpG and SNP": "cg00000029\trs1\ncg00000108\trs22\ncg00000109\trs333\n",
    "blanks around": " cg00000029 \ncg00000108\t\n  cg00000109\n",
    "rows of other lengths": "n\tcg00000029\ncg00000108\n3\tcg00000109\t\n",
    "cross-reactive probes": "TargetID\tProbe chr\tPosition\ncg00000029\t1\t5\ncg00000108\t1\t9\ncg00000109\t1\t7\n",
    "UTF-16": "Name\ncg00000029\ncg00000108\ncg00000109\n",
    "lone CR": "Name\rcg00000029\rcg00000108\rcg00000109\r",
}


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding))
    return path


@pytest.mark.parametrize("source", LISTS)
def test_lists_name_the_same(tmp_path: Path, source: str) -> None:
    path = write(tmp_path / "list.txt", LISTS[source], "utf-16" if source == "UTF-16" else "utf-8")
    assert not names_places(path, KNOWN) or read_places(path)["id"].tolist() == NAMES
    assert read_names(path, KNOWN) == NAMES


def test_names_that_look_like_no_probe_are_told_by_those_that_are_known(tmp_path: Path) -> None:
    path = write(tmp_path / "list.csv", "n,site\n1,alpha\n2,beta\n3,gamma\n")
    assert read_names(path, {"alpha", "beta"}) == ["alpha", "beta", "gamma"]
    assert read_names(write(path, "alpha\n"), {"beta"}) == ["alpha"]


BED = "chr1\t999\t1000{0}\nchr2\t1999\t2000{0}\n"
METHYL = "\t{code}\t9\t{strand}\t{start}\t{end}\t255,0,0\t9\t80.00"
PLACES = {  # the same two CpGs
    "BED": BED.format(""),
    "BED of the CG": "chr1\t999\t1001\nchr2\t1999\t2001\n",
    "UTF-8 mark": "\ufeff" + BED.format(""),
    "blanks": BED.format("").replace("\t", " "),
    "bedGraph": "track type=bedGraph name=x\n" + BED.format("\t0.25"),
    "bedGraph of percents": BED.format("\t100"),
    "bedMethyl of modkit": BED.format("\tm\t9\t+\t999\t1000\t255,0,0\t9\t80.00"),
    "bedMethyl with h beside m": (BED.format("\th\t9\t+\t0\t0\t0\t9\t20") + BED.format("\tm\t9\t+\t0\t0\t0\t9\t80")),
    "bedMethyl by context": BED.format("\tm,CG,0\t9\t+\t0\t0\t0\t9\t80"),
    "bedMethyl of ENCODE": BED.format("\t.\t9\t+\t0\t0\t0\t9\t80"),
    "code of ChEBI": BED.format("\t21839\t9\t+"),
    "label": BED.format("\tCpG\t0\t+"),
    "sample name": BED.format("\tsample1\t0\t+"),
    "MethylDackel": 'track type="bedGraph" description="x CpG methylation levels"\n' + BED.format("\t80\t8\t2"),
    "coverage of Bismark": "chr1\t1000\t1000\t80\t8\t2\nchr2\t2000\t2000\t0\t0\t9\n",
    "report of Bismark": "chr1\t1000\t+\t8\t2\tCG\tCGA\nchr2\t2000\t+\t0\t9\tCG\tCGT\n",
    "table": "chrom\tposition\nchr1\t999\nchr2\t1999\n",
    "table with #": "#chrom\tposition\nchr1\t999\nchr2\t1999\n",
    "CSV": "chr,start,end\nchr1,999,1000\nchr2,1999,2000\n",
    "floats": "position,chromosome\n999.0,chr1\n1999.0,chr2\n",
    "GRanges": '"","seqnames","start","end","width","strand"\n"1","chr1",1000,1000,1,"*"\n"2","chr2",2000,2000,1,"*"\n',
    "minfi": "chr\tpos\tstrand\nchr1\t1000\t+\nchr2\t2000\t+\n",
    "methylKit": "chrBase\tchr\tbase\tstrand\tcoverage\nchr1.1000\tchr1\t1000\tF\t9\nchr2.2000\tchr2\t2000\tF\t9\n",
    "our own ids": "chr1:999\nchr2:1999\n",
}


@pytest.mark.parametrize("source", PLACES)
def test_positions_are_the_same(tmp_path: Path, source: str) -> None:
    path = write(tmp_path / "places", PLACES[source])
    assert names_places(path, KNOWN)
    table = read_places(path)
    assert table["chrom"].tolist() == ["chr1", "chr2"]
    assert [float(position) for position in table["position"]] == [999, 1999]
    assert "id" not in table


@pytest.mark.parametrize(
    "content",
    [
        BED.format("").replace("1000", "1000\tone").replace("2000", "2000\ttwo"),
        "cpg\tchrom\tstart\tend\ta/b\none\tchr1\t999\t1000\t0.2\ntwo\tchr2\t1999\t2000\t0.3\n",  # our own means.tsv
        "CpG_chrm\tCpG_beg\tCpG_end\tprobe_strand\tprobeID\nchr1\t999\t1001\t+\tone\nchr2\t1999\t2001\t-\ttwo\n",
    ],
)
def test_names_of_positions_are_kept(tmp_path: Path, content: str) -> None:
    table = read_places(write(tmp_path / "x.bed", content))
    assert table["id"].tolist() == ["one", "two"] and table["chrom"].tolist() == ["chr1", "chr2"]
    assert table["position"].astype(int).tolist() == [999, 1999]


def test_regions_of_a_browser_are_no_positions(tmp_path: Path) -> None:
    for content in ("chr1:1,000\n", "chr1:1000-1001\n"):
        assert not names_places(write(tmp_path / "x.txt", content), KNOWN)  # refused as names that are not known


def test_strands_are_read(tmp_path: Path) -> None:
    calls = write(tmp_path / "calls", "chr\tbase\tstrand\nchr1\t1000\tF\nchr1\t1001\tR\n")
    assert read_places(calls)["strand"].tolist() == ["+", "-"]
    bed = write(tmp_path / "x.bed", "chr1\t999\t1000\t.\t9\t+\nchr1\t1000\t1001\t.\t9\t-\n")
    assert read_places(bed)["strand"].tolist() == ["+", "-"]


@pytest.mark.parametrize(
    ("content", "words"),
    [("", "empty"), ("# nothing\n", "empty"), ("chrom\tposition\nchr1\n", "row 'chr1' has 1 of 2 cells")],
)
def test_bad_files_are_named(tmp_path: Path, content: str, words: str) -> None:
    path = write(tmp_path / "x.txt", content)
    with pytest.raises(InputError, match=f"x.txt: {words}"):
        names_places(path, KNOWN)
        read_places(path)
