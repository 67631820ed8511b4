"""What the READMEs say exists: links and files, commands that the shell reads and Hydra composes, names in Python."""

import ast
import inspect
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import OmegaConf
from test_structure import COMMANDS, CONF, PACKAGE, ROOT, choices, composed, settings

READMES = [
    ROOT / "README.md",
    *sorted(path for folder in ("methyl_lightning", "experiments") for path in (ROOT / folder).rglob("*.md")),
]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# python and make say what they were given instead of running, and nothing else can be found
SHELL = """
set -uf; PATH= DATA=DATA
told() { printf '%s\\037' "$@"; printf '\\n'; }
python() { told python "$@"; }
make() { told make "$@"; }
"""
ELIDED = "…"


def blocks(path: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(path.read_text()) if language in languages]


def prose(path: Path) -> str:
    return FENCE.sub("", path.read_text())


def spans(path: Path) -> list[str]:
    return INLINE.findall(prose(path))


@cache
def invocations(path: Path) -> list[list[str]]:
    """List the words of every command that a file shows, as the shell would give them to python or make."""
    shown = blocks(path, "", "bash") + [text for text in spans(path) if re.match(r"(python|make) [\w-]", text)]
    told: list[list[str]] = []
    for script in shown:
        done = subprocess.run(["/bin/bash", "-c", SHELL + script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), f"{path}: {script}{done.stderr}"
        told += [line.removesuffix("\037").split("\037") for line in done.stdout.splitlines()]
    return told


def modules_run(path: Path, package: str) -> Iterator[tuple[str, list[str]]]:
    """Give the name and the arguments of every ``python -m package.name …``."""
    for words in invocations(path):
        if words[:2] == ["python", "-m"] and words[2].split(".")[0] == package:
            yield words[2], words[3:]


def jobs(arguments: list[str]) -> list[list[str]]:
    """Turn what a README shows into overrides, a list for each job of a sweep.

    What may be left out stands in brackets and is given here; an elided value of a group is left out, any other is
    some file.
    """
    given = [word.removeprefix("[").removesuffix("]") if word.startswith("[") else word for word in arguments]
    given = [word for word in given if word != ELIDED and not word.startswith("--")]
    given = [word for word in given if not re.fullmatch(rf"(data|model|trainer|logger)={ELIDED}", word)]
    parsed = OverridesParser.create().parse_overrides([word.replace(ELIDED, "FILE") for word in given])
    (batch,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return batch


@cache
def missing(command: str, *overrides: str) -> set[str]:
    """Compose a command, and name what it still asks for; Hydra refuses a group, choice or setting that isn't there."""
    return set(settings(command, *overrides)["missing"])


@cache
def known_settings() -> set[str]:
    """Name every setting of every command, whatever choices are made, by its full name and by its last part."""
    names: set[str] = set()

    def collect(node: Any, prefix: str) -> None:
        for key, value in node.items() if isinstance(node, dict) else ():
            names.update((f"{prefix}{key}", str(key)))
            collect(value, f"{prefix}{key}.")

    for command in COMMANDS:
        collect(OmegaConf.to_container(composed(command), resolve=False), "")
    for path in CONF.glob("*/*.yaml"):
        group = path.parent.name
        collect(OmegaConf.to_container(OmegaConf.load(path)), "" if group == "experiment" else f"{group}.")
        names.add(group)
    return names


def slugs(path: Path) -> set[str]:
    """Name the anchors of a file's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_readme_can_be_read_to_the_end() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


def test_every_experiment_has_a_readme_and_every_readme_is_reached() -> None:
    folders = [path for path in (ROOT / "experiments").iterdir() if any(path.glob("*.p*"))]
    assert len(folders) > 3 and all((folder / "README.md").is_file() for folder in folders)
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        path = todo.pop()
        reached.add(path)
        linked = {(path.parent / link.split("#")[0]).resolve() for link in LINK.findall(prose(path))}
        linked |= {folder / "README.md" for folder in linked if folder.is_dir()}
        todo += [other for other in linked if other in READMES and other not in reached]
    assert {path.relative_to(ROOT) for path in READMES} - {path.relative_to(ROOT) for path in reached} == set()


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
class TestEveryReadme:
    def test_links_resolve(self, path: Path) -> None:
        for link in LINK.findall(prose(path)):
            if not link.startswith("https://"):
                name, _, anchor = link.partition("#")
                target = path.parent / name if name else path
                assert target.exists(), link
                assert not anchor or anchor in slugs(target), link

    def test_files_and_names_exist(self, path: Path) -> None:
        for text in spans(path):
            if re.fullmatch(r"[\w./-]+\.py|(conf|tests|experiments|notebooks|methyl_lightning)/[\w./-]*", text):
                assert (path.parent / text).exists() or (ROOT / text).exists() or (PACKAGE / text).exists(), text
            elif re.fullmatch(r"methyl_lightning(\.\w+)+", text):
                assert get_object(text) is not None

    def test_settings_exist(self, path: Path) -> None:
        for text in spans(path):
            for name in re.findall(r"(?:^|\s)'?[+~]?([a-z_]\w*(?:\.\w+)*)=", text):
                assert name in known_settings(), text

    def test_tables_of_choices_are_whole(self, path: Path) -> None:
        for group, rows in re.findall(r"^\| `(\w+)=` \|.*\n\|[-| ]+\|\n((?:\|.*\n)+)", prose(path), flags=re.MULTILINE):
            named = [name for row in rows.splitlines() for name in INLINE.findall(row.split("|")[1])]
            assert sorted(named) == [name for name in choices(group) if name != "grid"]

    def test_commands_compose(self, path: Path) -> None:
        for module, arguments in modules_run(path, "methyl_lightning"):
            command = module.removeprefix("methyl_lightning.")
            assert command in COMMANDS and (PACKAGE / command / "__main__.py").is_file(), module
            for overrides in jobs(arguments):
                assert not missing(command, *overrides) or ELIDED in arguments, arguments

    def test_scripts_exist_and_know_their_options(self, path: Path) -> None:
        for words in invocations(path):
            if words[0] == "make":
                targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
                assert words[1] in targets
                assert all(word.removeprefix("DATA=") in choices("data") for word in words[2:])
            elif words[1] != "-m":
                assert (ROOT / words[1]).is_file(), words
        for module, arguments in modules_run(path, "experiments"):
            place = ROOT / module.replace(".", "/")
            script = place / "__main__.py" if place.is_dir() else place.with_suffix(".py")
            for option in (word for word in arguments if word.startswith("--")):
                assert f'"{option}"' in script.read_text(), (module, option)

    def test_python_imports_and_calls_fit(self, path: Path) -> None:
        for text in blocks(path, "python"):
            tree, names = ast.parse(text), {}
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom):
                    names |= {alias.name: getattr(import_module(str(node.module)), alias.name) for alias in node.names}
            calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
            assert calls
            for call in calls:
                given = dict.fromkeys(keyword.arg or "" for keyword in call.keywords)
                inspect.signature(names[call.func.id]).bind(*call.args, **given)


def test_these_tests_see_what_is_wrong(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(
        "# A page\n\n[gone](gone.md) `tests/gone.py` `data.gone=1`\n\n```\nfor n in 1 2; do\n"
        "  python -m methyl_lightning.train \\\n    seed=$n 'data.block=[1,2]' [model=…] …   # said\ndone\n"
        "python -m methyl_lightning.train --multirun seed=1,2 gone=1\n```\n\n"
        "```python\nfrom methyl_lightning.predict import predict\n\npredict()\n```\n"
    )
    shown = [arguments for _, arguments in modules_run(page, "methyl_lightning")]
    assert shown[:2] == [[f"seed={n}", "data.block=[1,2]", "[model=…]", "…"] for n in (1, 2)]
    assert [jobs(words) for words in shown[1:]] == [
        [["seed=2", "data.block=[1,2]"]],
        [["seed=1", "gone=1"], ["seed=2", "gone=1"]],
    ]
    tests = TestEveryReadme()
    for test in (tests.test_links_resolve, tests.test_files_and_names_exist, tests.test_settings_exist):
        with pytest.raises(AssertionError, match="gone"):
            test(page)
    with pytest.raises(Exception, match="gone"):
        tests.test_commands_compose(page)
    with pytest.raises(TypeError, match="missing"):
        tests.test_python_imports_and_calls_fit(page)
