import pytest

from aixcoder_serving.fim.languages import by_name, by_path, header


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("test.py", "Python"),
        ("a/b/c.h", "C++"),
        ("x.c", "C"),
        ("x.C", "C++"),
        ("MAIN.PY", "Python"),
        ("src\\main.rs", "Rust"),
        ("app.mjs", "JavaScript"),
        ("app.cjs", "JavaScript"),
        ("tsconfig.json", "JSON"),
        ("pyproject.toml", "TOML"),
        ("pom.xml", "XML"),
        ("style.scss", "SCSS"),
        ("build.gradle", "Groovy"),
        ("build.gradle.kts", "Kotlin"),
        ("api.proto", "Protocol Buffer"),
        ("Form.vb", "Visual Basic"),
        ("init.el", "Emacs Lisp"),
        ("View.m", "Objective-C"),
        ("Dockerfile", "Dockerfile"),
        ("docker/Dockerfile.gpu", "Dockerfile"),
        ("Makefile", "Makefile"),
        ("CMakeLists.txt", "CMake"),
        ("config.cmake.in", "CMake"),
        ("Jenkinsfile", "Groovy"),
        (".bashrc", "Shell"),
        ("x.tsx", "TypeScript with JSX"),
        ("x.swift", "swift"),
    ],
)
def test_language_of_a_file(path: str, language: str) -> None:
    found = by_path(path)
    assert found is not None
    assert found.name == language


@pytest.mark.parametrize("path", ["README", "x.unknown", "", ".", "a.", "notes.txt", "data.bin"])
def test_files_of_no_known_language(path: str) -> None:
    assert by_path(path) is None
    assert header(path, None) == ""


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("python", "Python"),
        ("Python", "Python"),
        ("typescriptreact", "TypeScript with JSX"),
        ("shellscript", "Shell"),
        ("cpp", "C++"),
        ("C#", "C#"),
        ("objective-cpp", "Objective-C++"),
    ],
)
def test_language_by_an_editors_name(name: str, language: str) -> None:
    found = by_name(name)
    assert found is not None
    assert found.name == language


@pytest.mark.parametrize(
    ("path", "language", "expected"),
    [
        ("test.py", None, "# the file path is: test.py\n# the code file is written by Python\n"),
        ("a/x.java", None, "// the file path is: a/x.java\n// the code file is written by Java\n"),
        ("x.css", None, "/* the file path is: x.css */\n/* the code file is written by CSS */\n"),
        ("i.html", None, "<!--the file path is: i.html-->\n<!--the code file is written by HTML-->\n"),
        ("m.f90", None, "!the file path is: m.f90\n!the code file is written by Fortran\n"),
        ("q.sql", None, "-- the file path is: q.sql\n-- the code file is written by SQL\n"),
        ("s.lua", None, "// the file path is: s.lua\n// the code file is written by Lua\n"),
        ("m.ml", None, "(*the file path is: m.ml*)\n(*the code file is written by OCaml*)\n"),
        (None, "rust", "// the code file is written by Rust\n"),
        ("script", "python", "# the file path is: script\n# the code file is written by Python\n"),
        ("x.py", "plaintext", "# the file path is: x.py\n# the code file is written by Python\n"),
        ("x.h", "c", "// the file path is: x.h\n// the code file is written by C\n"),
        (
            " a\nimport os\r\x00.py ",
            None,
            "# the file path is: a import os .py\n# the code file is written by Python\n",
        ),
        (None, None, ""),
        ("", "", ""),
    ],
)
def test_header(path: str | None, language: str | None, expected: str) -> None:
    assert header(path, language) == expected
