"""Who is typing where: the editor that a request comes from, and what keeps its requests on one replica.

Decides only.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from aixcoder_serving.protocol import CompletionRequest

TRIMMED = 200
"""Characters by which a prefix may be shorter than an older one that it still continues."""

_ANCHOR_CHARACTERS = 16_384  # more tells no better where a file is, and takes its time
_LEAST_LINE = 8  # characters: shorter lines, such as a brace, are in every file


@dataclass(frozen=True, slots=True)
class Editor:
    """One editor of one key's user. Keys apart, so that nobody can supersede another one's requests by a name."""

    key: str
    name: str


def editor(key: str | None, shared: bool, session: str | None, user: str | None) -> Editor | None:
    """The editor: by its own header, by the `user` of the body, by a key that is one person's; None where none tells.

    Without keys everybody has the same one, which is nobody's.
    """
    if session or user:
        return Editor(key or "", session or user or "")
    return Editor(key, "") if key is not None and not shared else None


def affinity(who: Editor | None, request: CompletionRequest) -> bytes:
    """What requests with a common beginning have in common: editor and path, else an anchored line of the prefix.

    The prompt's own beginning is none of it: the suffix comes first and starts at the cursor. Without an editor it is
    the line with the least digest in the prefix's first half: a window that moves with the cursor has it for long.
    """
    digest = hashlib.blake2b(digest_size=16)
    if who is not None:
        for part in (who.key, who.name, request.path or ""):
            digest.update(part.encode(errors="surrogatepass") + b"\0")
    elif request.prefix is not None:
        digest.update((request.path or "").encode(errors="surrogatepass") + b"\0")
        digest.update(_anchor(request.prefix))
    else:
        digest.update(repr((request.prompt_token_ids or ())[:64]).encode())
    return digest.digest()


def continues(new: CompletionRequest, old: CompletionRequest) -> bool:
    """Whether `new` is what became of `old` by typing on or deleting: same file and suffix, and nearly its prefix.

    The same prefix is no typing: it is another sample, or another try.
    """
    if new.prefix is None or old.prefix is None or (new.path, new.suffix) != (old.path, old.suffix):
        return False
    if new.prefix == old.prefix:
        return False
    if new.prefix.startswith(old.prefix):
        return True
    return old.prefix.startswith(new.prefix) and len(old.prefix) - len(new.prefix) <= TRIMMED


def _anchor(prefix: str) -> bytes:
    lines = prefix[: min(max(len(prefix) // 2, 256), _ANCHOR_CHARACTERS)].splitlines()
    digests = [
        hashlib.blake2b(line.strip().encode(errors="surrogatepass"), digest_size=16).digest()
        for line in lines
        if len(line.strip()) >= _LEAST_LINE
    ]
    return min(digests, default=b"")
