"""Documents are tests: what they show exists, parses and is true."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import yaml

from enforcer.cli import main
from policy.manifest import EVERY_NAMESPACE, load_manifests
from policy.runtime import settings_page
from policy.runtime.settings import load_settings

ROOT = Path(__file__).parents[2]
BESIDE = [readme for top in ("benchmarks", "deploy", "tests") for readme in ROOT.glob(f"{top}/**/README.md")]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *BESIDE])
OURS = [
    *(
        path
        for top in ("policy", "resolver", "enforcer", "tests", "deploy", "docs", "benchmarks")
        for path in (ROOT / top).rglob("*")
    ),
    *ROOT.glob("[!.]*.*"),
    ROOT / "Makefile",
    ROOT / "Dockerfile",
    ROOT / ".ci" / "run",
]


def fenced(path: Path, language: str) -> Iterator[str]:
    """The code blocks of one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", path.read_text(), re.DOTALL | re.MULTILINE)


def test_the_configuration_page_is_what_the_settings_say() -> None:
    """`make docs` writes it."""
    assert (ROOT / "docs" / "configuration.md").read_text() == settings_page.page()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Relative links name files that exist."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_in_documents_is_accepted(path: Path, tmp_path: Path) -> None:
    """Manifests have no errors; configurations load."""
    for block in fenced(path, "yaml"):
        documents = [document for document in yaml.safe_load_all(block) if document is not None]
        if all(isinstance(document, dict) and "kind" in document for document in documents):
            found = load_manifests({str(path): block}, EVERY_NAMESPACE).findings
            assert [finding for finding in found if finding.severity == "error"] == []
        elif documents and set(documents[0]) & {"policy", "dns", "enforcement", "limits", "runtimeDir"}:
            config = tmp_path / "nameward.yaml"
            whole = {"policy": {}} | documents[0]
            whole["policy"].setdefault("governedNamespaces", ["obot-mcp"])
            config.write_text(yaml.safe_dump(whole))
            load_settings(config, {})


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_documents_exist(path: Path) -> None:
    """Every `nameward …` is a command with these options; every script and make target is there."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = path.read_text()
    shown = [line for block in fenced(path, "sh") for line in block.splitlines()]
    inline = [
        code for code in re.findall(r"`([^`\n]+)`", text) if code.startswith(("nameward ", "make ", "bash "))
    ]
    for line in [*shown, *inline]:
        words = shlex.split(line.partition("#")[0])
        if not words:
            continue
        if words[0].endswith("nameward") and len(words) > 1:
            _is_a_command(words[1:])
        elif words[0] == "make":
            assert set(words[1:]) <= targets, line
        elif words[0] == "bash":
            assert (ROOT / words[1]).exists(), line


def _is_a_command(words: list[str]) -> None:
    command = main.get_command(click.Context(main), words[0].rstrip(","))
    assert command is not None, words
    known = {name for option in command.params for name in option.opts} | {"--help", "-h"}
    used = {word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
    assert used <= known, words


def test_every_command_of_the_contract_is_there() -> None:
    """This release's commands; the readme and --help show them."""
    asking = {"status", "inventory", "explain", "blocked", "grants"}
    clustered = {"controller", "bridge", "gate", "health", "uninstall"}
    commands = {"demo", "node", "enforcer", "resolver", "check"} | asking | clustered
    assert set(main.list_commands(click.Context(main))) == commands


def test_nothing_names_a_workplace() -> None:
    """No machine's paths, no registry's host and no key, in anything that is shipped or shown."""
    paths = r"(?<![\w.])/(?:wor[k]|roo[t]|hom[e])/|/tmp/seam[s]|/opt/wheel[s]"
    foreign = re.compile(rf"{paths}|pyp[i]\.org|python[h]osted|BEGIN [A-Z ]*PRIVATE KEY")
    for path in OURS:
        if path.is_file() and path != Path(__file__) and path.suffix not in {".pyc", ".bin"}:
            found = foreign.search(path.read_text(errors="replace"))
            assert found is None, f"{path}: {found and found[0]}"
