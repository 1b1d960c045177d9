"""The native library is built where its sources changed, whole or not at all, and a failure is told."""

import ctypes
import platform
import shutil
from pathlib import Path

import pytest

from aixcoder_serving.engine.cpu import build

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or shutil.which("g++") is None, reason="needs g++ on x86-64"
)


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one source, for one variant that every x86-64 processor runs."""
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setattr(build, "FOLDER", tmp_path)
    monkeypatch.setattr(build, "VARIANTS", {"plain": (("-march=x86-64",), frozenset())})
    (tmp_path / "build.py").write_bytes(Path(build.__file__).read_bytes())
    (tmp_path / "answer.h").write_text("#define ANSWER 42\n")
    (tmp_path / "answer.cpp").write_text('#include "answer.h"\nextern "C" int answer() { return ANSWER; }\n')
    return tmp_path


def test_it_is_built_once_for_the_same_sources(sources: Path) -> None:
    assert not build.is_current(build.library("plain"))
    [made] = build.build()
    assert made == sources / "libaix_plain.so"
    assert build.is_current(made)
    assert ctypes.CDLL(str(made)).answer() == 42
    before = made.stat().st_ino
    assert build.build() == [made]
    assert made.stat().st_ino == before


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("answer.h", "#define ANSWER 43\n"),
        ("more.cpp", 'extern "C" int more() { return 1; }\n'),
        ("build.py", "# other flags\n"),
    ],
)
def test_it_is_built_again_for_other_sources(sources: Path, file: str, text: str) -> None:
    [made] = build.build()
    before = made.stat().st_ino
    (sources / file).write_text(text)
    assert not build.is_current(made)
    build.build()
    assert build.is_current(made)
    assert made.stat().st_ino != before


def test_a_source_that_does_not_compile_leaves_what_was_there(sources: Path) -> None:
    [made] = build.build()
    (sources / "answer.cpp").write_text("int answer() { return nothing; }\n")
    with pytest.raises(build.BuildFailed, match=r"nothing.* was not declared"):
        build.build()
    assert [file.name for file in sources.glob("*.so")] == [made.name]
    assert ctypes.CDLL(str(made)).answer() == 42


def test_no_compiler(sources: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.BuildFailed, match="no no-such-compiler on this machine: install it"):
        build.build()
    assert build.main() == 1
    assert capsys.readouterr().err.startswith("error: no no-such-compiler")
    assert not list(sources.glob("*.so"))


def test_another_processor(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    with pytest.raises(build.BuildFailed, match="for Linux on x86-64, not Linux aarch64"):
        build.build()
    assert not list(sources.glob("*.so"))
