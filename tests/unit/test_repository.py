"""What holds for the whole checkout, whatever is in it."""

import re
import subprocess
from pathlib import Path

import pytest

from scripts.lint import files, is_shell
from scripts.steps import REPOSITORY, Outcome, summary

TEXT = [path for path in files() if path.suffix not in {".safetensors", ".gz", ".png"}]
# Folders that exist on one machine only. A home folder or a cache is found from the environment.
MACHINE_PATH = re.compile(r"(?<![\w.$}~-])/(?:work|root|home/\w+|Users/\w+)/\w")
# Package indexes and registries other than the public ones are one site's business.
INDEX = re.compile(r"(?:index-url|extra-index-url|find-links|GOPROXY)\s*=\s*[\"']?(https?://[^\s\"']+)")
# Hosts under .example exist nowhere (RFC 2606): tests and documents name them.
PUBLIC = ("https://pypi.org/", "https://files.pythonhosted.org/", "https://proxy.golang.org", "https://mirror.example/")


def text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("root", ["operator", "serving"])
def test_source_roots_are_no_packages(root: str) -> None:
    """As a package, `operator/` would take the place of the standard library's module of that name."""
    assert (REPOSITORY / root).is_dir()
    assert not (REPOSITORY / root / "__init__.py").exists()


def test_no_file_names_a_machine_path() -> None:
    found = {
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in TEXT
        if path != Path(__file__)
        for number, line in enumerate(text(path).splitlines(), 1)
        if MACHINE_PATH.search(line)
    }
    assert not found


def test_no_file_names_a_private_package_index() -> None:
    found = {
        (str(path.relative_to(REPOSITORY)), url)
        for path in TEXT
        if path != Path(__file__)
        for url in INDEX.findall(text(path))
        if not url.startswith(PUBLIC)
    }
    assert not found


def test_the_lock_names_public_hosts_only() -> None:
    hosts = set(re.findall(r"https?://[^/\"]+", text(REPOSITORY / "uv.lock")))
    assert hosts == {"https://pypi.org", "https://files.pythonhosted.org"}


def test_shell_scripts_stop_at_an_error() -> None:
    scripts = [path for path in files() if is_shell(path)]
    assert scripts
    for path in scripts:
        assert re.search(r"^set -[a-z]*e", text(path), re.MULTILINE), f"{path}: no `set -e`"


def test_make_help_lists_every_target() -> None:
    targets = re.search(r"^\.PHONY: (.+)$", text(REPOSITORY / "Makefile"), re.MULTILINE)
    assert targets
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    assert re.findall(r"^  ([a-z0-9-]+)  +\S", shown, re.MULTILINE) == targets[1].split()


@pytest.mark.parametrize(
    ("name", "outcomes", "planned", "expected"),
    [
        (
            "all passed",
            [Outcome("lint", 2.0, ok=True), Outcome("unit", 1.0, ok=True)],
            ["lint", "unit"],
            "passed in 3.0 s",
        ),
        ("first failed", [Outcome("lint", 2.0, ok=False)], ["lint", "unit"], "FAILED in 2.0 s"),
        ("stopped early", [Outcome("lint", 2.0, ok=True)], ["lint", "unit"], "FAILED in 2.0 s"),
    ],
)
def test_summary_says_passed_only_when_everything_ran(
    name: str, outcomes: list[Outcome], planned: list[str], expected: str
) -> None:
    lines = summary("make test", outcomes, planned).splitlines()
    assert lines[0] == f"make test: {expected}", name
    assert len(lines) == 1 + len(planned)
    assert ("not run" in lines[-1]) == (len(outcomes) < len(planned))
