"""New API keys."""

import json

import pytest

from aixcoder_serving.cli import main
from aixcoder_serving.gateway.keys import identify, parse_record
from aixcoder_serving.gateway.new_key import new_key


def test_a_new_key_is_known_by_its_entry() -> None:
    key, entry = new_key("alice")
    assert identify(f"Bearer {key}", {"alice": parse_record("alice", entry)}) is not None
    assert key not in entry
    assert set(json.loads(entry)) == {"sha256"}
    assert new_key("alice")[0] != key


def test_by_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    main(
        [
            "keys",
            "new",
            "team-a",
            "--team",
            "t",
            "--shared",
            "--weight",
            "2",
            "--concurrent-requests",
            "3",
            "--models",
            "m, n",
        ]
    )
    told = capsys.readouterr()
    assert told.err.startswith("axk_team-a_")
    entry = json.loads(told.out)
    said = {"team": "t", "shared": True, "weight": 2.0, "concurrentRequests": 3, "models": ["m", "n"]}
    assert entry == said | {"sha256": entry["sha256"]}
    assert identify(f"Bearer {told.err}", {"team-a": parse_record("team-a", told.out)}) is not None


@pytest.mark.parametrize(
    "arguments", [["Alice"], ["-"], ["a", "--weight", "0"], ["a", "--concurrent-requests", "none"]]
)
def test_what_is_no_key(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["keys", "new", *arguments])
    assert ended.value.code not in (0, None)
    assert "axk_" not in capsys.readouterr().err
