"""What the package is built from: vulnerabilities, licences, no pickle: ``python -m experiments.reliability.audit``.

The exit status is 1 where something is found; an advisory service that cannot be reached is one line and no finding.
"""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINS = ROOT / "constraints.txt"
SOURCES = ("methyl_lightning", "experiments")
# modules that run what they read; the name of pickle's error may be imported
RUNNING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
HARMLESS = {("pickle", "UnpicklingError"), ("pickle", "PicklingError")}
# calls that run what they read unless an argument has this value
SAFE_BY = {
    "torch.load": ("weights_only", True),
    "load_from_checkpoint": ("weights_only", True),
    "trainer.fit": ("weights_only", True),
    "trainer.test": ("weights_only", True),
    "trainer.validate": ("weights_only", True),
    "np.load": ("allow_pickle", False),
}
SAFE_AS_IT_IS = {"np.load"}  # without the argument as well
TRAINERS = {"trainer.fit", "trainer.test", "trainer.validate"}  # which load only what ckpt_path names
NEVER = {
    *("pd.read_pickle", "pandas.read_pickle", "read_pickle", "to_pickle", "yaml.load", "yaml.unsafe_load"),
    *("yaml.full_load", "eval", "exec", "os.system", "torch.hub.load", "torch.jit.load", "np.fromregex"),
}
KINDS = {  # the first that fits; strong copyleft would reach whoever ships this package
    "strong copyleft": r"\b(AGPL|GPL|SSPL|GNU (Affero )?General Public|EUPL|OSL|CC[- ]BY[- ](SA|NC))",
    "weak copyleft": r"LGPL|Lesser General|MPL|Mozilla|EPL|CDDL",
    "permissive": r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|zlib|Unlicense|CC0|HPND|BSL|Boost|Public Domain",
}
REFUSED = ("strong copyleft", "unknown")


def pickles(path: Path) -> Iterator[str]:
    """Name the places of a source file where something could be loaded that runs."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            running = [one.name for one in node.names if _module(one.name) in RUNNING]
            yield from (f"{path}:{node.lineno}: import {name}" for name in running)
        elif isinstance(node, ast.ImportFrom) and _module(node.module or "") in RUNNING:
            for one in node.names:
                if (node.module, one.name) not in HARMLESS:
                    yield f"{path}:{node.lineno}: from {node.module} import {one.name}"
        elif isinstance(node, ast.Call):
            yield from _unsafe(path, node)


def _module(name: str) -> str:
    return name.split(".")[0]


def _unsafe(path: Path, node: ast.Call) -> Iterator[str]:
    called = ast.unparse(node.func)
    given = {word.arg: word.value.value for word in node.keywords if isinstance(word.value, ast.Constant)}
    if called in NEVER:
        yield f"{path}:{node.lineno}: {called}(…)"
    if given.get("allow_pickle") is True or given.get("shell") is True:
        yield f"{path}:{node.lineno}: {called}(…) with allow_pickle or shell"
    for name, (argument, value) in SAFE_BY.items():
        if (called == name or called.endswith(f".{name}")) and given.get(argument) != value:
            words = {word.arg for word in node.keywords}
            if argument not in words and (name in SAFE_AS_IT_IS or (name in TRAINERS and "ckpt_path" not in words)):
                continue
            yield f"{path}:{node.lineno}: {called}(…) without {argument}={value}"


def pinned() -> dict[str, str]:
    """Read name and version of every pin."""
    lines = [line.split(";")[0].strip() for line in PINS.read_text().splitlines()]
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def licence(package: Distribution) -> tuple[str, str]:
    """Return the licence that a package says it has, and its kind."""
    about = package.metadata
    classified = [line.split(" :: ")[-1] for line in about.get_all("Classifier") or [] if line.startswith("License ::")]
    said = about.get("License-Expression") or "; ".join(classified) or (about.get("License") or "").strip()
    text = said.splitlines()[0][:60] if said else ""
    if re.fullmatch(r"|UNKNOWN|OSI Approved|=*", text):
        text = " ".join((about.get("License") or "").split())[:60]
    choices = re.split(r"\s+OR\s+|\s/\s", text)  # whoever may choose takes the freest
    return text or "none said", min((_kind(choice) for choice in choices), key=lambda kind: (kind in REFUSED, kind))


def _kind(text: str) -> str:
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, text, re.IGNORECASE)), "unknown")


def check_sources() -> list[str]:
    """Find places in the source that could run what they load."""
    paths = [path for folder in SOURCES for path in sorted((ROOT / folder).rglob("*.py"))]
    found = [place.replace(f"{ROOT}/", "") for path in paths for place in pickles(path)]
    print(f"pickle: {len(paths)} source files, {len(found)} places that could run what they load")
    return found


def check_licences() -> list[str]:
    """Print the licence of every pin that is installed; return those that are refused."""
    found, absent = [], []
    print("\n| package | version | licence | kind |\n|---|---|---|---|")
    for name, version in pinned().items():
        try:
            text, kind = licence(distribution(name))
        except PackageNotFoundError:
            absent.append(name)
            continue
        print(f"| {name} | {version} | {text} | {kind} |")
        if kind in REFUSED:
            found.append(f"{name} {version}: {kind} ({text})")
    print(f"\nlicences: {len(found)} refused; not installed here: {', '.join(absent) or 'none'}")
    return found


def check_advisories() -> list[str]:
    """Ask pip-audit for known vulnerabilities of the pins."""
    options = ["--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json"]
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(PINS), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        print(f"advisories: not looked up ({reason})")
        return []
    known = [package for package in packages if "vulns" in package]
    print(f"advisories: {len(known)} of {len(packages)} pins looked up" + ("" if known else ", none could be reached"))
    return [
        f"{package['name']} {package['version']}: {one['id']}, mended in {', '.join(one['fix_versions']) or 'none'}"
        for package in known
        for one in package["vulns"]
    ]


def main() -> int:
    """Look at all of it, and return 1 where something is found."""
    found = [*check_sources(), *check_licences(), *check_advisories()]
    for line in found:
        print(f"found: {line}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
