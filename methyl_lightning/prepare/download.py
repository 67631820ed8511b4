"""Public files of a TCGA cohort, fetched once and checked ever after.

The addresses are those of UCSC Xena's legacy hub (hg19), UCSC's genomes and GENCODE as they were published; they could
not be reached where this was written, so only the layout was tried, against a server that keeps it. Each base address
is a setting.

A transfer that breaks goes on where it stopped, also in a later run, as long as the server still has the same file. The
SHA-256 of each file is written to ``checksums.json`` beside the files when it has first been fetched whole.
"""

import gzip
import json
import logging
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import pooch
import requests
import urllib3

from methyl_lightning.files import InputError, replacing
from methyl_lightning.readers.progress import shown

log = logging.getLogger(__name__)

XENA = "https://tcga-xena-hub.s3.us-east-1.amazonaws.com/download"
UCSC = "https://hgdownload.soe.ucsc.edu/goldenPath"
GENCODE = "https://ftp.ebi.ac.uk/pub/databases/gencode/Gencode_human"
PROBE_MAP = "illuminaMethyl450_hg19_GPL16304_TCGAlegacy"  # counts from 0
GENES = "gencode.v19.annotation.gtf.gz"  # the last GENCODE release of its own on hg19
CHECKSUMS = "checksums.json"
REFUSED = (401, 403, 404, 410)  # asking again is of no use
RETRIES = 3
TIMEOUT_S = 30
CHUNK = 1 << 20


class CohortFiles(NamedTuple):
    """Where the files of the cohorts lie, and the SHA-256 of each, by its name under the folder.

    Attributes
    ----------
    methylation, expression
        One file a cohort.
    probe_map, genome, genes
        hg19; the probe map counts from 0.
    sha256
        For the provenance.
    """

    methylation: dict[str, Path]
    expression: dict[str, Path]
    probe_map: Path
    genome: Path
    genes: Path
    sha256: dict[str, str]


def download_tcga(
    folder: str | Path,
    cohorts: list[str],
    *,
    xena: str = XENA,
    ucsc: str = UCSC,
    gencode: str = GENCODE,
) -> CohortFiles:
    """Fetch what isn't in the folder yet of TCGA cohorts on hg19: HM450 beta, RNA-seq, probe map, genome and genes.

    Parameters
    ----------
    folder
        Where the files go; ``checksums.json`` in it keeps their SHA-256.
    cohorts
        TCGA's names, such as ``["BRCA", "LUAD"]``.
    xena, ucsc, gencode
        Base addresses.

    Raises
    ------
    InputError
        If there is no network, no such file, no room, or a file is damaged or not the one that was fetched first.
    """
    folder = Path(folder)
    urls = {
        f"TCGA.{cohort}.{name}": f"{xena}/TCGA.{cohort}.sampleMap%2F{name}"
        for cohort in cohorts
        for name in ("HumanMethylation450.gz", "HiSeqV2.gz")
    }
    urls[PROBE_MAP] = f"{xena}/probeMap%2F{PROBE_MAP}"
    urls["hg19.fa.gz"] = f"{ucsc}/hg19/bigZips/hg19.fa.gz"
    urls[GENES] = f"{gencode}/release_19/{GENES}"
    sha256 = {name: fetch(url, folder / name) for name, url in urls.items()}
    return CohortFiles(
        methylation={cohort: folder / f"TCGA.{cohort}.HumanMethylation450.gz" for cohort in cohorts},
        expression={cohort: folder / f"TCGA.{cohort}.HiSeqV2.gz" for cohort in cohorts},
        probe_map=folder / PROBE_MAP,
        genome=folder / "hg19.fa.gz",
        genes=folder / GENES,
        sha256=sha256,
    )


def fetch(url: str, path: Path) -> str:
    """Fetch a file unless it is there, check it, and return its SHA-256.

    A file that is there, put by hand perhaps, is taken as it is the first time and must stay so.
    """
    record = path.with_name(CHECKSUMS)
    try:
        known: dict[str, Any] = json.loads(record.read_text()) if record.exists() else {}
    except ValueError as error:
        raise InputError(f"{record}: not the JSON that was written ({error}); mend or remove it") from error
    sha256 = known.get(path.name, {}).get("sha256")
    if not path.exists():
        _download(url, path, sha256)
    found = pooch.file_hash(str(path))
    if sha256 is None:
        with replacing(record, "checksums") as temporary:
            known[path.name] = {"url": url, "bytes": path.stat().st_size, "sha256": found}
            temporary.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    elif sha256 != found:
        raise InputError(f"{path}: changed since it was fetched (SHA-256 in {record}); remove it to fetch it again")
    return found


def _download(url: str, path: Path, sha256: str | None) -> None:
    """Let pooch fetch a file, and say in one line what went wrong."""
    by_hand = f"or put the file at {path}"
    pooch.get_logger().setLevel(logging.WARNING)  # its advice on checksums is for programmers
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        registry = {path.name: None if sha256 is None else f"sha256:{sha256}"}
        library = pooch.create(
            path.parent, base_url="", registry=registry, urls={path.name: url}, retry_if_failed=RETRIES
        )
        library.fetch(path.name, downloader=_Resuming(path))
    except _RefusedError as error:
        raise InputError(f"{url}: {error}; give another base address {by_hand}") from error
    except requests.RequestException as error:
        reason = " ".join(str(error).split())
        remedy = f"check the network and run it again to go on where it stopped, {by_hand}"
        raise InputError(f"{url}: not fetched in {RETRIES + 1} attempts ({reason}); {remedy}") from error
    except ValueError as error:
        reason = "is damaged" if sha256 is None else f"is damaged or not the one of {path.with_name(CHECKSUMS)}"
        raise InputError(f"{path.name} {reason}: {url} was fetched {RETRIES + 1} times; try later {by_hand}") from error
    except OSError as error:
        raise InputError(f"{path}: not written ({error}); make room and run it again") from error


class _RefusedError(Exception):
    """The server has no such file, or doesn't give it."""


class _Resuming:
    """Downloader for pooch that keeps what has come of a file and asks for the rest.

    Beside the file lie, until it is whole, ``.NAME.part`` and ``.NAME.tag``, by which the server tells whether its file
    is still the same (ETag or date); where it gives none, the file is fetched from the beginning.
    """

    def __init__(self, path: Path):
        self._name = path.name
        self._part, self._tag = (path.with_name(f".{path.name}.{end}") for end in ("part", "tag"))

    def __call__(self, url: str, output_file: str, pooch: pooch.Pooch) -> None:
        """Fetch the file; what a second attempt may mend is a ``ValueError`` or an error of requests."""
        if self._part.is_symlink() or self._tag.is_symlink():  # not what was left here
            self._forget()
        tag = self._tag.read_text() if self._tag.exists() else ""
        came = self._part.stat().st_size if tag and self._part.exists() else 0
        headers = {"Accept-Encoding": "identity"}  # a .gz file is to stay one
        if came:
            headers |= {"Range": f"bytes={came}-", "If-Range": tag}
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self._forget()
            if response.status_code in REFUSED:
                raise _RefusedError(f"the server says {response.status_code} {response.reason}")
            response.raise_for_status()
            if response.status_code != requests.codes.partial_content:
                came = 0
                self._forget()
                tag = response.headers.get("ETag", "W/")
                self._tag.write_text(response.headers.get("Last-Modified", "") if tag.startswith("W/") else tag)
            self._receive(response, came)
        if Path(self._name).suffix == ".gz" and not _is_whole_gzip(self._part):
            self._forget()
            raise ValueError("no whole gzip file")
        self._part.replace(output_file)
        self._forget()

    def _receive(self, response: requests.Response, came: int) -> None:
        total = came + int(response.headers.get("Content-Length", 0))
        size = f"{total / 1e6:,.1f} MB" if total > came else "size unknown"
        log.info(f"fetching {response.url} ({size}{f', {came / 1e6:,.1f} MB are there' if came else ''})")
        megabytes = total / 1e6 if total > came else None
        try:
            with self._part.open("ab" if came else "wb") as file, shown(self._name, megabytes, "MB") as tell:
                tell(came / 1e6)
                for chunk in response.raw.stream(CHUNK, decode_content=False):
                    file.write(chunk)
                    tell(len(chunk) / 1e6)
        except urllib3.exceptions.HTTPError as error:
            raise requests.ConnectionError(f"broken off: {error}") from error

    def _forget(self) -> None:
        self._part.unlink(missing_ok=True)
        self._tag.unlink(missing_ok=True)


def _is_whole_gzip(path: Path) -> bool:
    try:
        with gzip.open(path) as file:
            while file.read(CHUNK):
                pass
    except (OSError, EOFError, zlib.error):
        return False
    return True
