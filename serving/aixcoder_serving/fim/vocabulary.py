"""A model's tokenizer as the prompt builder needs it: ids by piece, text to ids and back without the two guard traps.

SentencePiece-like tokenizers treat the start of a string specially: encoding may put a space piece in front, decoding
may eat a leading space. So text is encoded behind a guard character whose ids are dropped, and ids are decoded behind
the id of a guard piece whose text is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

BOS, EOS = "<s>", "</s>"
PRE, MIDDLE, POST = "▁<AIX-SPAN-PRE>", "▁<AIX-SPAN-MIDDLE>", "▁<AIX-SPAN-POST>"
END_TURN = "▁<AIX-END-TURN>"

_ENCODE_GUARD = "☺"
# Not the same character: where it falls apart into bytes, invalid bytes behind it would spoil it too.
_DECODE_GUARD = "a"


class VocabularyError(ValueError):
    """The tokenizer is missing, unreadable or not one of an aiXcoder model; the message says which and what to do."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of a text, and for each the index of the character at which it starts.

    Those are made when they are asked for: that takes half as long as encoding.
    """

    ids: list[int]
    starts: Callable[[], list[int]]


class Vocabulary:
    """Token ids of one model. Thread-safe after construction."""

    def __init__(self, tokenizer: Tokenizer, pad: str | None = None, origin: str = "the tokenizer") -> None:
        """Resolve all ids that prompts need; `pad` is the padding piece, where the model has one."""
        self._tokenizer = tokenizer
        # User code that spells `<s>` or a sentinel is code: only this module writes special ids.
        tokenizer.encode_special_tokens = True
        self._origin = origin
        self.bos = self._id(BOS)
        self.eos = self._id(EOS)
        self.pre = self._id(PRE)
        self.middle = self._id(MIDDLE)
        self.post = self._id(POST)
        stops = {self.bos, self.eos, self.pre, self.middle, self.post, self._id(END_TURN)}
        if pad is not None:
            stops.add(self._id(pad))
        self.stop_ids = frozenset(stops)
        added: dict[int, Any] = tokenizer.get_added_tokens_decoder()
        self.special_ids = self.stop_ids | {i for i, token in added.items() if token.special}
        self._encode_guard_ids = len(self._encode(_ENCODE_GUARD).ids)
        self._decode_guard_id = self._id(_DECODE_GUARD)

    @classmethod
    def load(cls, model_path: str | Path) -> Vocabulary:
        """Read `tokenizer.json` and, for the padding piece, `tokenizer_config.json` of a model's folder.

        Raises `VocabularyError`.
        """
        file = Path(model_path) / "tokenizer.json"
        if not file.is_file():
            raise VocabularyError(f"{file} is not there: the model's folder must hold its tokenizer")
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises bare Exception
            raise VocabularyError(f"{file} is no tokenizer: {error}") from error
        return cls(tokenizer, _padding_piece(file.with_name("tokenizer_config.json")), str(file))

    @property
    def size(self) -> int:
        """Number of ids, added ones included."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> Encoded:
        """Ids of `text` as it stands inside a document: nothing before it, no special piece recognised in it."""
        guarded = self._encode(_ENCODE_GUARD + text)
        n = self._encode_guard_ids
        return Encoded(guarded.ids[n:], lambda: [start - len(_ENCODE_GUARD) for start, _ in guarded.offsets[n:]])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids` without special pieces; a run of byte pieces that is not UTF-8 becomes one U+FFFD a byte."""
        text: str = self._tokenizer.decode([self._decode_guard_id, *ids], skip_special_tokens=True)
        return text.removeprefix(_DECODE_GUARD)

    def byte_of(self, token_id: int) -> int | None:
        """Value of a byte piece such as `<0x0A>`; None for all others."""
        return self._byte_pieces.get(token_id)

    def bytes_of(self, token_id: int) -> bytes:
        """What an id adds to the text. A padded model has ids beyond the tokenizer's: they add nothing."""
        table = self.token_bytes
        return table[token_id] if token_id < len(table) else b""

    @cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """What each id adds to the text, as bytes; nothing for special ids."""
        guard = self._decode_guard_id
        texts = self._tokenizer.decode_batch([[guard, i] for i in range(self.size)], skip_special_tokens=True)
        table = [text.removeprefix(_DECODE_GUARD).encode() for text in texts]
        for token_id, value in self._byte_pieces.items():
            table[token_id] = bytes([value])
        for token_id in self.special_ids:
            table[token_id] = b""
        return tuple(table)

    @cached_property
    def _byte_pieces(self) -> dict[int, int]:
        ids = {self._tokenizer.token_to_id(f"<0x{value:02X}>"): value for value in range(256)}
        return {token_id: value for token_id, value in ids.items() if token_id is not None}

    def _encode(self, text: str) -> Any:
        return self._tokenizer.encode(text, add_special_tokens=False)

    def _id(self, piece: str) -> int:
        token_id: int | None = self._tokenizer.token_to_id(piece)
        if token_id is None:
            raise VocabularyError(
                f"{self._origin} has no piece {piece!r}: an aiXcoder model's tokenizer must hold all sentinels"
            )
        return token_id


def _padding_piece(config: Path) -> str | None:
    """Name of the padding piece: a string, or an object with `content`; None where nothing names one."""
    if not config.is_file():
        return None
    try:
        pad = json.loads(config.read_text(encoding="utf-8")).get("pad_token")
    except (ValueError, AttributeError) as error:
        raise VocabularyError(f"{config} is not a JSON object: {error}") from error
    return pad.get("content") if isinstance(pad, dict) else pad
