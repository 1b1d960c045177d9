"""The generated files: committed as they are made, and a difference is found and named."""

from pathlib import Path

import pytest
import yaml

from aixcoder_operator.api.crd import CHART_FILE, CRD_FILE, REFERENCE_FILE, generated, main, stale, write
from aixcoder_operator.api.definition import definition

ROOT = Path(__file__).resolve().parents[3]


def test_the_committed_files_are_current() -> None:
    assert stale(ROOT) == []


def test_the_file_holds_the_definition() -> None:
    assert yaml.safe_load(generated()[CRD_FILE]) == definition()


def test_the_chart_ships_the_same_definition() -> None:
    assert generated()[CHART_FILE] == generated()[CRD_FILE]


def test_written_once(tmp_path: Path) -> None:
    assert write(tmp_path) == [CRD_FILE, CHART_FILE, REFERENCE_FILE]
    assert stale(tmp_path) == []
    assert write(tmp_path) == []


@pytest.mark.parametrize("path", [CRD_FILE, CHART_FILE, REFERENCE_FILE])
def test_a_file_that_was_edited_is_named_with_the_remedy(
    tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path)
    with (tmp_path / path).open("a", encoding="utf-8") as file:
        file.write("an edit\n")
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"{path} differs from the types in operator/aixcoder_operator/api: run `make generate`\n"
    )
    assert "an edit" in (tmp_path / path).read_text(encoding="utf-8")
