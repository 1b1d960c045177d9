"""Writes what is made from the types: the CRD, the chart's copy of it and the reference page.

`python -m aixcoder_operator.api.crd` writes them beneath the current folder; with `--check` it only compares.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from aixcoder_operator.api.definition import definition, schema
from aixcoder_operator.api.reference import page

CRD_FILE = "crds/serving.aixcoder.io_aixcoderdeployments.yaml"
CHART_FILE = "helm/aixcoder/files/crds/serving.aixcoder.io_aixcoderdeployments.yaml"
REFERENCE_FILE = "docs/api-reference.md"

_MARK = "# Made from operator/aixcoder_operator/api by `make generate`: change it there.\n"


def generated() -> dict[str, str]:
    """Every generated file: path from the repository's root → its text."""
    crd = _MARK + "---\n" + yaml.safe_dump(definition(), sort_keys=False, width=110, allow_unicode=True)
    return {CRD_FILE: crd, CHART_FILE: crd, REFERENCE_FILE: page(schema())}


def stale(root: Path) -> list[str]:
    """The generated files beneath `root` that are missing or not what the types say."""
    return [
        path
        for path, text in generated().items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]


def write(root: Path) -> list[str]:
    """Writes the stale ones and returns their paths."""
    texts = generated()
    written = stale(root)
    for path in written:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(texts[path], encoding="utf-8")
    return written


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 1 where `--check` finds a file that differs."""
    parser = argparse.ArgumentParser(description="Write or check the files made from the resource's types.")
    parser.add_argument("--check", action="store_true", help="write nothing; name what differs and exit with 1")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository's root (default: the current folder)")
    arguments = parser.parse_args(argv)
    if not arguments.check:
        for path in write(arguments.root):
            print(f"wrote {path}")
        return 0
    found = stale(arguments.root)
    for path in found:
        print(f"{path} differs from the types in operator/aixcoder_operator/api: run `make generate`", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
