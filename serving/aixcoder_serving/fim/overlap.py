"""The rest of the cursor's line: when the prompt leaves it out, and how it is taken off what the model writes.

An editor closes brackets and quotes by itself: after `foo(` the rest of the line is `)`. Suffix first, a suffix that
begins with it changes the head of the prompt at that key and again when `)` is typed over. So where the rest of the
line holds closers and one sign at most, the prompt's suffix begins at the next line. The model then writes the rest of
the line itself, and `Trim` keeps that out of the text, which goes in at the cursor, before the rest.
"""

from __future__ import annotations

import re

# Possessive: a long run of spaces that does not match fails at once.
_REST = re.compile(r"""(?P<lead>\s*+)(?P<closers>[)}\]"'`]*+)\s*+(?P<sign>[:{;,]?+)\s*+""")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_QUOTES = "\"'`"
_NEVER = "\0"  # closes what the rest does not know of: nothing behind it can stand before the rest
_LOOKAHEAD = 2  # characters after one that say what it is: `\"\"\"`, `::`, `:=`


def rest_of_line(suffix: str) -> str:
    """What of `suffix` the model is to write itself: all up to the next line's start, or "" to begin at the cursor.

    The suffix of the prompt is what follows it. A function of the text after the cursor alone, so that typing before
    the cursor changes nothing.
    """
    end = suffix.find("\n") + 1 or len(suffix)
    return suffix[:end] if _REST.fullmatch(suffix, 0, end) else ""


class Trim:
    """Takes the rest of the cursor's line off a completion while it comes; however it is split, the text is the same.

    All that was shown can stand before the rest: the brackets that were open at the cursor are open again behind it.
    What closes them is held until the line ends. Then either the completion went on inside of them (`a).b(` before
    `)`), and all of it is shown, or it ends where the rest begins: what follows has no place before the rest.

    A rest of white space alone takes one line end off the completion's end, and no more.
    """

    def __init__(self, rest: str) -> None:
        """`rest` is what `rest_of_line` returned; "" shows everything at once. Raises ValueError on anything else."""
        found = _REST.fullmatch(rest)
        if found is None:
            raise ValueError("not the rest of a line that `rest_of_line` would leave to the model")
        self._rest = rest
        self._lead, closers, self._sign = found.group("lead", "closers", "sign")
        self._whole = closers + self._sign
        self._repeats = {closers, self._whole}
        self._outer = _units(closers)[::-1]  # what closes what is open at the cursor, innermost last
        self._open = list(self._outer)  # the same, at `_at`
        self._text = ""
        self._at = 0  # up to here it was read
        self._safe = 0  # up to here it can stand before the rest
        self._shown = 0
        self._cut: int | None = None  # the text ends here, whatever comes
        self._quote: int | None = None  # a string that the completion opened begins here
        self._first: int | None = None  # where this line first closed what was open at the cursor
        self._last: int | None = None  # where it last did, if that is not open again
        self._separator: int | None = None  # a `,` or `;` that may turn out to be the rest's own

    @property
    def done(self) -> bool:
        """Whether nothing more can be shown: the generation can be ended."""
        return self._cut is not None

    def push(self, text: str) -> str:
        """Take what was generated next, return what can be shown now."""
        if not self._rest:
            return text
        if self.done:
            return ""
        self._text += text
        self._read(len(self._text) - _LOOKAHEAD)
        end = self._safe if self._cut is None else self._cut
        return self._show(end)

    def finish(self) -> str:
        """Return what is left to show: the completion has ended."""
        self._read(len(self._text))
        while self._quote is not None and not self.done:
            self._reread()
            self._read(len(self._text))
        if not self.done:
            self._end_line(len(self._text))
        if self._cut is not None:
            return self._show(self._cut)
        rest = self._text[self._shown :]
        self._shown = len(self._text)
        return rest.removesuffix("\n").removesuffix("\r") if self._rest else rest

    def _show(self, end: int) -> str:
        """Return the text up to `end` that was not shown. White space waits: at the cut it can be the rest's own."""
        if self._cut is None:
            while end > self._shown and self._text[end - 1].isspace():
                end -= 1
        elif self._lead and self._text.endswith(self._lead, self._shown, end):
            end -= len(self._lead)
        shown = self._text[self._shown : end]
        self._shown = max(self._shown, end)
        return shown

    def _read(self, end: int) -> None:
        if not self._whole:
            self._at = self._safe = len(self._text)
            return
        while self._at < end and self._cut is None:
            here = self._at
            top = self._open[-1] if self._open else ""
            if top and top[0] in _QUOTES:
                self._in_string(here, top)
            else:
                self._in_code(here, self._text[here])
            if self._open[: len(self._outer)] != self._outer:
                self._last = here if self._last is None else self._last
                self._first = here if self._first is None else self._first
                continue
            self._last = None
            if self._first is None and self._quote is None and self._separator is None and self._cut is None:
                self._safe = self._at

    def _in_string(self, here: int, quote: str) -> None:
        text = self._text
        self._at = here + 1
        if text.startswith(quote, here):
            self._at = here + len(quote)
            self._open.pop()
            self._quote = None
        elif text[here] == "\\" and text[here + 1 : here + 2] != "\n":
            self._at = min(here + 2, len(text))
        elif text[here] == "\n":
            if self._quote is not None:
                self._reread()
            elif quote in ("'", '"'):
                self._cut = here - text.endswith("\r", 0, here)

    def _reread(self) -> None:
        """The string did not end on its line: its quote was an apostrophe, or the like."""
        if self._quote is not None:
            self._at = self._quote + len(self._open.pop())
            self._quote = None

    def _in_code(self, here: int, character: str) -> None:
        self._at = here + 1
        if character == "\n":
            self._end_line(here)
            return
        if self._separator is not None and not character.isspace():
            self._separator = None
        if character == self._sign and not self._outer and not self._open:
            if character in ",;":
                self._separator = here
            elif character == ":" and self._text[here + 1 : here + 2] in (":", "="):
                self._at = here + 2
            else:
                self._cut = here
        elif character in _QUOTES:
            quote = character * 3 if self._text.startswith(character * 3, here) else character
            self._open.append(quote)
            self._quote, self._at = here, here + len(quote)
        elif character in _CLOSING:
            self._open.append(_CLOSING[character])
        elif character in ")]}":
            self._close(character)

    def _close(self, closer: str) -> None:
        while self._open and self._open[-1] != closer and len(self._open) > len(self._outer):
            self._open.pop()  # opened by the completion and never closed
        if self._open and self._open[-1] == closer:
            self._open.pop()
        elif self._outer:
            self._open = [_NEVER]

    def _end_line(self, here: int) -> None:
        """Decide what was held; `here` is the line's end."""
        if self._separator is not None:
            self._cut = self._separator
        elif self._last is not None:
            ending = "".join(self._text[self._last : here].split())
            self._cut = self._last if ending in self._repeats else self._first
        self._first = None


def _units(closers: str) -> list[str]:
    """Closers one by one, three equal quotes as one."""
    return re.findall(r"\"\"\"|'''|```|.", closers)
