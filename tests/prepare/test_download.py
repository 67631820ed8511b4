"""Downloads from a local server that keeps the layout of the public ones, cuts transfers and damages files."""

import errno
import gzip
import hashlib
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from conftest import assert_refused, command

from methyl_lightning.data.store import ALPHABET, Store
from methyl_lightning.files import InputError
from methyl_lightning.prepare.download import CHECKSUMS, PROBE_MAP, download_tcga, fetch


class Hub(ThreadingHTTPServer):
    """Serves ``files`` by path; what it was asked for is kept in ``asked`` as (path, Range or None)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, bytes] = {}
        self.cut: list[int] = []  # bytes after which the next answers break off
        self.status: list[int] = []  # of the next answers
        self.tags = True
        self.asked: list[tuple[str, str | None]] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Range"]))
        content = self.server.files.get(self.path)
        status = self.server.status.pop(0) if self.server.status else 200 if content is not None else 404
        if status != 200 or content is None:
            self.send_error(status)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        first = 0
        if self.headers["Range"] and self.headers["If-Range"] == tag:
            first, status = int(self.headers["Range"].removeprefix("bytes=").rstrip("-")), 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(content) - first))
        if self.server.tags:
            self.send_header("ETag", tag)
        self.end_headers()
        sent = content[first:]
        self.wfile.write(sent[: self.server.cut.pop(0)] if self.server.cut else sent)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Hub() as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


CONTENT = gzip.compress(b"".join(b"%d" % (number**3) for number in range(30_000)), mtime=0)


@pytest.fixture
def url(hub: Hub) -> str:
    hub.files["/values.gz"] = CONTENT
    return f"{hub.address}/values.gz"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(url: str, path: Path, *words: str) -> str:
    with pytest.raises(InputError) as refused:
        fetch(url, path)
    message = str(refused.value)
    assert "\n" not in message
    for word in (path.name, *words):
        assert word in message
    return message


def test_file_is_fetched_once_and_its_checksum_kept(hub, url, tmp_path):
    path = tmp_path / "raw" / "values.gz"
    assert fetch(url, path) == fetch(url, path) == sha256(CONTENT)
    assert path.read_bytes() == CONTENT
    assert hub.asked == [("/values.gz", None)]
    record = {"url": url, "bytes": len(CONTENT), "sha256": sha256(CONTENT)}
    assert json.loads((path.parent / CHECKSUMS).read_text()) == {"values.gz": record}
    assert names(path.parent) == [CHECKSUMS, "values.gz"]


def test_broken_transfer_goes_on_where_it_stopped(hub, url, tmp_path):
    hub.cut = [10_000, 5_000]
    assert fetch(url, tmp_path / "values.gz") == sha256(CONTENT)
    assert [asked for _, asked in hub.asked] == [None, "bytes=10000-", "bytes=15000-"]
    assert names(tmp_path) == [CHECKSUMS, "values.gz"]


def test_broken_transfer_goes_on_in_a_later_run(hub, url, tmp_path):
    hub.cut = [1_000] * 4
    refusal(url, tmp_path / "values.gz", url, "4 attempts", "run it again")
    assert names(tmp_path) == [".values.gz.part", ".values.gz.tag"]
    hub.asked.clear()
    assert fetch(url, tmp_path / "values.gz") == sha256(CONTENT)
    assert hub.asked == [("/values.gz", "bytes=4000-")]


def test_transfer_begins_anew_when_the_file_is_another(hub, url, tmp_path):
    hub.cut = [1_000] * 4
    refusal(url, tmp_path / "values.gz")
    hub.files["/values.gz"] = other = gzip.compress(CONTENT[::-1])
    assert fetch(url, tmp_path / "values.gz") == sha256(other)


def test_transfer_begins_anew_without_a_tag(hub, url, tmp_path):
    hub.tags, hub.cut = False, [10_000]
    assert fetch(url, tmp_path / "values.gz") == sha256(CONTENT)
    assert [asked for _, asked in hub.asked] == [None, None]


def test_busy_server_is_asked_again(hub, url, tmp_path):
    hub.status = [503, 503]
    assert fetch(url, tmp_path / "values.gz") == sha256(CONTENT)
    assert len(hub.asked) == 3


@pytest.mark.parametrize("damage", [CONTENT[:-9], CONTENT[:9_000] + b"?" + CONTENT[9_001:], b"<html>sign in</html>"])
def test_damaged_file_is_named_and_not_kept(hub, url, tmp_path, damage):
    hub.files["/values.gz"] = damage
    refusal(url, tmp_path / "values.gz", "damaged", url)
    assert len(hub.asked) == 4
    assert names(tmp_path) == []


def test_other_file_than_the_first_one_is_named(hub, url, tmp_path):
    path = tmp_path / "values.gz"
    fetch(url, path)
    path.unlink()
    hub.files["/values.gz"] = gzip.compress(b"another release")
    refusal(url, path, "damaged or not the one of", CHECKSUMS)
    assert names(tmp_path) == [CHECKSUMS]
    hub.files["/values.gz"] = CONTENT
    assert fetch(url, path) == sha256(CONTENT)


def test_file_changed_on_the_disk_is_named(hub, url, tmp_path):
    path = tmp_path / "values.gz"
    fetch(url, path)
    path.write_bytes(CONTENT[:-1])
    refusal(url, path, "changed since", CHECKSUMS, "remove it")


def test_file_put_by_hand_is_taken_and_remembered(hub, url, tmp_path):
    path = tmp_path / "values.gz"
    path.write_bytes(b"my own")
    assert fetch(url, path) == sha256(b"my own")
    assert not hub.asked
    path.write_bytes(b"my other own")
    refusal(url, path, "changed since")


def test_missing_file_is_asked_for_once(hub, tmp_path):
    refusal(f"{hub.address}/nothing.gz", tmp_path / "nothing.gz", "404", "base address", str(tmp_path / "nothing.gz"))
    assert len(hub.asked) == 1


def test_no_network(hub, tmp_path):
    address = hub.address
    hub.shutdown()
    hub.server_close()
    refusal(f"{address}/values.gz", tmp_path / "values.gz", address, "check the network", "put the file")


def test_full_disk(url, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("methyl_lightning.prepare.download._Resuming._receive", full)
    refusal(url, tmp_path / "values.gz", "No space left on device", "make room")


def test_damaged_record_is_named(hub, url, tmp_path):
    (tmp_path / CHECKSUMS).write_text("{")
    with pytest.raises(InputError, match=f"{CHECKSUMS}: not the JSON"):
        fetch(url, tmp_path / "values.gz")


def test_cohorts_in_the_layout_of_the_public_servers(hub, tmp_path):
    hub.files = {
        "/xena/TCGA.BRCA.sampleMap%2FHumanMethylation450.gz": gzip.compress(b"beta of BRCA"),
        "/xena/TCGA.BRCA.sampleMap%2FHiSeqV2.gz": gzip.compress(b"genes of BRCA"),
        "/xena/TCGA.LUAD.sampleMap%2FHumanMethylation450.gz": gzip.compress(b"beta of LUAD"),
        "/xena/TCGA.LUAD.sampleMap%2FHiSeqV2.gz": gzip.compress(b"genes of LUAD"),
        f"/xena/probeMap%2F{PROBE_MAP}": b"#id\tchrom\n",
        "/ucsc/hg19/bigZips/hg19.fa.gz": gzip.compress(b">chr1\nACGT\n"),
        "/gencode/release_19/gencode.v19.annotation.gtf.gz": gzip.compress(b"chr1\t.\tgene\n"),
    }
    servers = {name: f"{hub.address}/{name}" for name in ("xena", "ucsc", "gencode")}
    found = download_tcga(tmp_path, ["BRCA", "LUAD"], **servers)
    assert gzip.decompress(found.methylation["LUAD"].read_bytes()) == b"beta of LUAD"
    assert gzip.decompress(found.expression["BRCA"].read_bytes()) == b"genes of BRCA"
    assert found.probe_map.read_bytes() == b"#id\tchrom\n"
    assert gzip.decompress(found.genome.read_bytes()).startswith(b">chr1")
    assert gzip.decompress(found.genes.read_bytes()).startswith(b"chr1")
    assert sorted(path for path, _ in hub.asked) == sorted(hub.files)
    paths = [*found.methylation.values(), *found.expression.values(), found.probe_map, found.genome, found.genes]
    assert found.sha256 == {path.name: sha256(path.read_bytes()) for path in paths}
    assert names(tmp_path) == sorted([CHECKSUMS, *found.sha256])
    assert download_tcga(tmp_path, ["BRCA", "LUAD"], **servers) == found
    assert len(hub.asked) == len(hub.files)


def zipped(rows: list[str]) -> bytes:
    return gzip.compress("".join(row.replace(" ", "\t") + "\n" for row in rows).encode())


def serve_two_cohorts(hub: Hub) -> list[str]:
    """Serve BRCA and LUAD of a small genome with four CpGs and a probe off CG; return the settings of prepare."""
    bases = "TTTTTTTTCGATTTTTTTCGCGTTTTTTTTTTCGTT"
    places = {"cg1": 8, "cg2": 18, "cg3": 20, "cg4": 32, "ch5": 10}
    for cohort, patient in (("BRCA", "TCGA-AA-0001-01"), ("LUAD", "TCGA-BB-0002-01")):
        folder = f"/xena/TCGA.{cohort}.sampleMap%2F"
        values = [f"{cpg} {place / 100}" for cpg, place in places.items()]
        hub.files[f"{folder}HumanMethylation450.gz"] = zipped([f"sample {patient}", *values])
        hub.files[f"{folder}HiSeqV2.gz"] = zipped([f"sample {patient}", "PLUS 1.5", "NOWHERE 2"])
    rows = [f"{cpg} . chr1 {place} {place + 2} ." for cpg, place in places.items()]
    header = "#id gene chrom chromStart chromEnd strand"
    hub.files[f"/xena/probeMap%2F{PROBE_MAP}"] = gzip.decompress(zipped([header, *rows]))
    hub.files["/ucsc/hg19/bigZips/hg19.fa.gz"] = gzip.compress(f">chr1\n{bases}\n".encode())
    gene = 'chr1\tH\tgene\t12\t30\t.\t+\t.\tgene_id "ENSG00000000001.5"; gene_name "PLUS";\n'
    hub.files["/gencode/release_19/gencode.v19.annotation.gtf.gz"] = gzip.compress(gene.encode())
    servers = [f"++data.download.{name}={hub.address}/{name}" for name in ("xena", "ucsc", "gencode")]
    return ["data=tcga_brca_luad", "raw=raw", "data.source.window=6", "download=true", *servers]


def test_prepare_fetches_two_cohorts_and_makes_their_store(hub, tmp_path):
    settings = serve_two_cohorts(hub)
    hub.cut = [30]
    result = command("prepare", settings, tmp_path)
    assert result.status == 0, result.err
    store = Store(tmp_path / "stores" / "tcga_brca_luad.h5")
    assert store.cpgs["id"].tolist() == ["cg1", "cg2", "cg3", "cg4"]
    assert store.cpgs["position"].tolist() == [8, 18, 20, 32]
    sequences = ["".join(ALPHABET[code] for code in codes) for codes in store.sequence_CL]
    assert sequences == ["TTCGAT", "TTCGCG", "CGCGTT", "TTCGTT"]
    assert store.samples["cohort"].tolist() == ["BRCA", "LUAD"]
    np.testing.assert_allclose(store.beta(np.arange(4), np.arange(2))[:, 1], [0.08, 0.18, 0.2, 0.32], atol=1e-6)
    assert store.distances.bp_N.tolist() == [3, -7, -9, -21]
    record = store.attributes["provenance"]
    checksums = json.loads((tmp_path / "raw" / "tcga_brca_luad" / CHECKSUMS).read_text())
    assert {one["file"]: one["sha256"] for one in record["inputs"]} == {
        name: one["sha256"] for name, one in checksums.items()
    }
    assert record["counts"]["genes_without_coordinates"] == 1
    assert {"filter": "on CG", "kept": 4, "dropped": 1} in record["filters"]
    asked = len(hub.asked)
    assert command("prepare", settings, tmp_path).status == 0
    assert len(hub.asked) == asked


def test_prepare_names_a_damaged_download_and_makes_no_store(hub, tmp_path):
    settings = serve_two_cohorts(hub)
    hub.files["/ucsc/hg19/bigZips/hg19.fa.gz"] = b"<html>busy</html>"
    result = command("prepare", settings, tmp_path)
    *logged, error = result.err.splitlines(keepends=True)  # what is fetched is logged before
    assert all(line.startswith("fetching ") for line in logged)
    assert_refused(result._replace(err=error), "hg19.fa.gz is damaged", hub.address)
    assert not (tmp_path / "stores").exists()


def test_prepare_without_network_says_where_the_files_go(hub, tmp_path):
    settings = serve_two_cohorts(hub)
    hub.shutdown()
    hub.server_close()
    result = command("prepare", settings, tmp_path)
    assert_refused(result, "check the network", "raw/tcga_brca_luad/TCGA.BRCA.HumanMethylation450.gz")
