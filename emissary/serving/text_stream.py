"""Text of a row as it grows: whole characters only, ended by a stop string."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TextStream:
    """Turns token ids into text that is final, piece by piece.

    `text` is all text so far, without special tokens and without the stop string; `stopped_by` is the stop
    string that ended it. Bytes at the end that make no whole character are left out.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str]) -> None:
        self._tokenizer = tokenizer.backend_tokenizer
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stop = stop
        self._given = 0
        self.text = ""
        self.stopped_by: str | None = None

    def push(self, token: int) -> str:
        """Add a token id; returns the text that became final, which may be empty."""
        piece = self._decoder.step(self._tokenizer, token)
        if not piece:
            return ""
        self.text += piece
        found = [(at, stop) for stop in self._stop if (at := self.text.find(stop, self._given)) >= 0]
        if found:
            at, self.stopped_by = min(found)
            self.text = self.text[:at]
            return self.finish()
        return self._give(len(self.text) - self._held_back())

    def finish(self) -> str:
        """The rest of the text, which was held back as the possible beginning of a stop string."""
        return self._give(len(self.text))

    def _held_back(self) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        longest = min(max(map(len, self._stop), default=1) - 1, len(self.text) - self._given)
        for length in range(longest, 0, -1):
            if any(stop.startswith(self.text[-length:]) for stop in self._stop):
                return length
        return 0

    def _give(self, end: int) -> str:
        piece = self.text[self._given : end]
        self._given = end
        return piece
