import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from aixcoder_serving.fim.vocabulary import Vocabulary, VocabularyError
from tests.unit.fim.conftest import TINY


def _tokenizer(**changes: Any) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(json.loads((TINY / "tokenizer.json").read_text()) | changes))


@pytest.fixture
def sentencepiece() -> Vocabulary:
    """As sentencepiece has it: a space before each text, and away again when decoding."""
    return Vocabulary(
        _tokenizer(
            normalizer={
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "▁"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
                ],
            },
            decoder={
                "type": "Sequence",
                "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"},
                    {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0},
                ],
            },
        )
    )


def test_ids_are_those_of_aixcoder(vocabulary: Vocabulary) -> None:
    assert (vocabulary.bos, vocabulary.eos) == (1, 2)
    assert (vocabulary.pre, vocabulary.middle, vocabulary.post) == (260, 261, 262)
    assert vocabulary.stop_ids == {1, 2, 260, 261, 262, 263}
    assert vocabulary.special_ids == {0, 1, 2, 260, 261, 262, 263, 264, 265}
    assert vocabulary.size == 2048


@pytest.mark.parametrize("piece", ["▁<AIX-SPAN-POST>", "▁<AIX-END-TURN>", "<s>"])
def test_a_missing_sentinel_is_named(piece: str) -> None:
    text = (TINY / "tokenizer.json").read_text().replace(f'"{piece}"', '"other"')
    with pytest.raises(VocabularyError, match=piece):
        Vocabulary(Tokenizer.from_str(text))


@pytest.mark.parametrize(
    ("pad", "expected"),
    [(None, {1, 2, 260, 261, 262, 263}), ("<unk>", {0, 1, 2, 260, 261, 262, 263}), ({"content": "<unk>"}, {0})],
)
def test_the_padding_piece_stops_too(tmp_path: Path, pad: Any, expected: set[int]) -> None:
    (tmp_path / "tokenizer.json").symlink_to(TINY / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({} if pad is None else {"pad_token": pad}))
    stops = Vocabulary.load(tmp_path).stop_ids
    assert stops == expected if pad is None or isinstance(pad, str) else stops >= expected


def test_a_folder_without_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"tokenizer\.json is not there"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"version": "1.0"}'])
def test_a_broken_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(VocabularyError, match="is no tokenizer"):
        Vocabulary.load(tmp_path)


def test_a_broken_tokenizer_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").symlink_to(TINY / "tokenizer.json")
    (tmp_path / "tokenizer_config.json").write_text("[]")
    with pytest.raises(VocabularyError, match="not a JSON object"):
        Vocabulary.load(tmp_path)


@pytest.mark.parametrize("text", ["<s>", "</s>", "<unk>", "▁<AIX-SPAN-PRE>", "a </s>b"])
def test_code_that_spells_a_special_piece_is_code(vocabulary: Vocabulary, text: str) -> None:
    ids = vocabulary.encode(text).ids
    assert not vocabulary.special_ids & set(ids)
    assert vocabulary.decode(ids) == text.replace("▁", " ")


@pytest.mark.parametrize("text", ["x", " x", "    return", "\n\n  x", "", "\t", "☺", "é 你好"])
def test_neither_guard_leaves_a_trace(sentencepiece: Vocabulary, vocabulary: Vocabulary, text: str) -> None:
    for v in (sentencepiece, vocabulary):
        encoded = v.encode(text)
        assert v.decode(encoded.ids) == text
        assert encoded.ids == vocabulary.encode(text).ids
        assert encoded.starts()[:1] == [0][: len(encoded.ids)]


def test_without_guards_the_traps_are_real(sentencepiece: Vocabulary) -> None:
    plain = _tokenizer(
        normalizer={
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        }
    )
    assert plain.encode("x", add_special_tokens=False).ids != sentencepiece.encode("x").ids


def test_starts_are_characters_of_the_text(vocabulary: Vocabulary) -> None:
    encoded = vocabulary.encode("é☃x")
    assert encoded.starts() == [0, 1, 1, 1, 2]


def test_token_bytes_are_what_ids_stand_for(vocabulary: Vocabulary) -> None:
    table = vocabulary.token_bytes
    assert len(table) == 2048
    assert (table[3], table[258], table[0x41 + 3]) == (b"\x00", b"\xff", b"A")
    assert all(table[i] == b"" for i in vocabulary.special_ids)
    text = "    def f(self):\n\n        return '☃ é'\n"
    assert b"".join(table[i] for i in vocabulary.encode(text).ids) == text.encode()
