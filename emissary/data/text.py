"""UTF-8 files as text, piece by piece or line by line, never the whole file at once."""

import codecs
from collections.abc import Iterator
from pathlib import Path

from emissary.errors import InvalidInput

PIECE_BYTES = 1 << 20


def pieces(path: Path) -> Iterator[str]:
    """Yield the file's text in pieces of at most `PIECE_BYTES` bytes, without a leading byte order mark.

    Raises InvalidInput, with the byte offset, for bytes that are not UTF-8 and for NUL bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset = 0
    with path.open("rb") as file:
        data = file.read(PIECE_BYTES)
        if data.startswith(codecs.BOM_UTF8):
            data, offset = data[len(codecs.BOM_UTF8) :], len(codecs.BOM_UTF8)
        while True:
            undecoded = len(decoder.getstate()[0])
            try:
                text = decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise InvalidInput(
                    f"The file is not UTF-8 text: the byte at offset {offset - undecoded + error.start} is "
                    "not valid. Save the file as UTF-8 and upload it again."
                ) from None
            if (nul := data.find(b"\0")) >= 0:
                raise InvalidInput(
                    f"The file is not text: there is a NUL byte at offset {offset + nul}. "
                    "Save the file as UTF-8 text and upload it again."
                )
            if text:
                yield text
            if not data:
                return
            offset += len(data)
            data = file.read(PIECE_BYTES)


def lines(path: Path) -> Iterator[str]:
    """Yield the file's lines with their line ends; raises as `pieces`.

    Only a line feed ends a line: str.splitlines would also split at U+2028 and its like, which are ordinary
    characters inside a JSON string or a CSV cell.
    """
    unfinished: list[str] = []
    for piece in pieces(path):
        *ended, rest = piece.split("\n")
        for line in ended:
            yield "".join([*unfinished, line, "\n"])
            unfinished = []
        unfinished.append(rest)
    if last := "".join(unfinished):
        yield last
