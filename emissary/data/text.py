"""UTF-8 content piece by piece, line by line or in blocks of lines, never the whole file at once."""

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from emissary.data.content import Content, fully
from emissary.errors import InvalidInput

PIECE_BYTES = 1 << 20
BLOCK_BYTES = 1 << 20
MOST_ROW_BYTES = 16 << 20


@dataclass(frozen=True)
class Block:
    """Whole lines of a text, each with its line end but perhaps the last."""

    data: bytes
    first_line: int
    """Number of the first line in the file, from 1."""
    offset: int = 0
    """Of its first byte in the file."""

    def check(self) -> None:
        """Raise InvalidInput, with the byte offset, for bytes that are not UTF-8 and for NUL bytes."""
        if (nul := self.data.find(b"\0")) >= 0:
            raise _nul_byte(self.offset + nul)
        if self.data.isascii():
            return
        ends = pa.array([0, len(self.data)], pa.int64()).buffers()[1]
        text = pa.Array.from_buffers(pa.large_string(), 1, [None, ends, pa.py_buffer(self.data)])
        try:
            text.validate(full=True)  # several times faster than decoding
        except pa.ArrowInvalid:
            try:
                self.data.decode()
            except UnicodeDecodeError as error:
                raise _not_utf8(self.offset + error.start) from None

    def parts(self, count: int) -> Iterator["Block"]:
        """The same lines as about `count` smaller blocks."""
        start, line = 0, self.first_line
        step = len(self.data) // count + 1
        while start < len(self.data):
            end = self.data.find(b"\n", start + step - 1) + 1 or len(self.data)
            yield Block(self.data[start:end], line)
            line += self.data.count(b"\n", start, end)
            start = end

    def lines(self) -> Iterator[tuple[int, str]]:
        """The lines, each with its number."""
        return enumerate(self.data.decode().split("\n"), self.first_line)


def blocks(content: Content) -> Iterator[Block]:
    """Yield the content in blocks of about `BLOCK_BYTES`, without a leading byte order mark; they are to be checked.

    Raises InvalidInput for a line over 16 MiB.
    """
    offset, line, rest = 0, 1, b""
    while data := fully(content, BLOCK_BYTES):
        if line == 1 and not offset and not rest and data.startswith(codecs.BOM_UTF8):
            offset, data = len(codecs.BOM_UTF8), data[len(codecs.BOM_UTF8) :]
        end = data.rfind(b"\n") + 1
        if end:
            block = Block(b"".join((rest, memoryview(data)[:end])), line, offset)
            yield block
            offset += len(block.data)
            line += block.data.count(b"\n")
            rest = b""
        rest += data[end:]
        if len(rest) > MOST_ROW_BYTES:
            raise InvalidInput(f"Line {line} is longer than {MOST_ROW_BYTES >> 20} MiB. Write one row a line.")
    if rest:
        yield Block(rest, line, offset)


def pieces(content: Content) -> Iterator[str]:
    """Yield the text in pieces of at most `PIECE_BYTES` bytes, without a leading byte order mark.

    Raises InvalidInput, with the byte offset, for bytes that are not UTF-8 and for NUL bytes.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    offset, is_first = 0, True
    while True:
        data = content.read(PIECE_BYTES)
        undecoded = len(decoder.getstate()[0])
        try:
            text = decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            raise _not_utf8(offset - undecoded + error.start) from None
        if (nul := data.find(b"\0")) >= 0:
            raise _nul_byte(offset + nul)
        if text and is_first:
            text, is_first = text.removeprefix("\ufeff"), False
        if text:
            yield text
        if not data:
            return
        offset += len(data)


def lines(content: Content) -> Iterator[str]:
    """Yield the lines with their line ends; raises as `blocks` and `Block.check`.

    Only a line feed ends a line: str.splitlines would also split at U+2028 and its like, which are ordinary
    characters inside a JSON string or a CSV cell.
    """
    for block in blocks(content):
        block.check()
        *ended, last = block.data.decode().split("\n")
        for line in ended:
            yield line + "\n"
        if last:
            yield last


def _not_utf8(offset: int) -> InvalidInput:
    return InvalidInput(
        f"The file is not UTF-8 text: the byte at offset {offset} is not valid. Save the file as UTF-8 and upload it "
        "again."
    )


def _nul_byte(offset: int) -> InvalidInput:
    return InvalidInput(
        f"The file is not text: there is a NUL byte at offset {offset}. Save the file as UTF-8 text and upload it "
        "again."
    )
