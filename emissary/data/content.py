"""The content of an uploaded file: unpacked where it is gzip or zstd, as UTF-8 where it is UTF-16."""

import codecs
import re
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import pyarrow as pa

from emissary.errors import InvalidInput

PARQUET = b"PAR1"
HEAD_BYTES = 64 * 1024
_MIB = 1024 * 1024
_ALWAYS_UNPACKED = 64 * _MIB
_MOST_TIMES = 200  # text of rows that repeat packs 100 to 1; gzip can pack a bomb 1000 to 1, zstd more

_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
# Behind a byte order mark, or without one: rows and headers begin with letters or signs of ASCII.
_UTF16 = {
    "utf-16-le": re.compile(rb"(\xff\xfe)|[^\0]\0[^\0]\0"),
    "utf-16-be": re.compile(rb"(\xfe\xff)|\0[^\0]\0[^\0]"),
}
_OTHERS = {
    b"PK\x03\x04": (0, "a zip archive or an Excel workbook", "Unzip it, or save the sheet as CSV"),
    b"\xd0\xcf\x11\xe0": (0, "an Excel workbook or another Office document", "Save the sheet as CSV"),
    b"ustar": (257, "a tar archive", "Unpack it"),
    b"BZh": (0, "packed with bzip2", "Unpack it, or pack it with gzip or zstd"),
    b"\xfd7zXZ": (0, "packed with xz", "Unpack it, or pack it with gzip or zstd"),
    b"7z\xbc\xaf": (0, "a 7-Zip archive", "Unpack it"),
    b"%PDF-": (0, "a PDF", "Write its rows as JSONL or CSV"),
    b"ARROW1": (0, "an Arrow file", "Write it as Parquet"),
}


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Content:
    """Bytes to read once, in order; its first `HEAD_BYTES` can be looked at before."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self.head = fully(source, HEAD_BYTES)
        self._unread_head = self.head

    def read(self, size: int) -> bytes:
        """The next bytes, at most `size`, b"" at the end. Raises InvalidInput where the file is broken."""
        if self._unread_head:
            data, self._unread_head = self._unread_head[:size], self._unread_head[size:]
            return data
        return self._source.read(size)

    def seekable_copy(self, path: Path) -> IO[bytes]:
        """The content as a file for random access, by whoever reads nothing else of it; `path` where that is it."""
        if isinstance(self._source, _Plain):
            return path.open("rb")
        copy = tempfile.TemporaryFile()  # noqa: SIM115
        while piece := self.read(_MIB):
            copy.write(piece)
        copy.seek(0)
        return copy


@contextmanager
def opened(path: Path, most_bytes: int | None = None) -> Iterator[Content]:
    """Open the file at `path`; gzip and zstd are unpacked, whatever its name says.

    Raises InvalidInput, also while the content is read: for an archive or another kind of file that holds no rows,
    one that is packed and broken, and one that unpacks to more than `most_bytes` (None: no limit), or to more than 64
    MiB and 200 times its size, as archive bombs do.
    """
    with ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        start = file.read(512)
        file.seek(0)
        if not start:
            raise InvalidInput("The file is empty. Upload a file with at least one row.")
        source: _Source = _Plain(file)
        if packing := next((name for magic, name in _PACKED.items() if start.startswith(magic)), None):
            stream = stack.enter_context(pa.CompressedInputStream(file, packing))
            source = _Unpacked(stream, packing, Limit.of(path.stat().st_size, most_bytes))
        content = Content(source)
        _refuse_others(content.head)
        if packing and any(content.head.startswith(magic) for magic in _PACKED):
            raise InvalidInput("The file is packed twice. Unpack it once and upload it again.")
        if not content.head:
            raise InvalidInput("The packed file is empty. Upload a file with at least one row.")
        for encoding, begins in _UTF16.items():
            if begun := begins.match(content.head):
                mark = begun[1] or b""
                content.read(len(mark))
                content = Content(_Utf16(content, encoding, len(mark)))
                break
        yield content


def _refuse_others(head: bytes) -> None:
    for magic, (offset, what, advice) in _OTHERS.items():
        if head[offset : offset + len(magic)] == magic:
            raise InvalidInput(f"The file is {what}, not a file of rows. {advice} and upload that.")


def fully(source: _Source, size: int) -> bytes:
    """The next `size` bytes, fewer only at the end."""
    first = source.read(size)
    if len(first) >= size or not first:
        return first
    data = bytearray(first)
    while len(data) < size and (piece := source.read(size - len(data))):
        data += piece
    return bytes(data)


class _Plain:
    def __init__(self, file: IO[bytes]) -> None:
        self.read = file.read


@dataclass(frozen=True)
class Limit:
    """How many bytes a file may hold when it is unpacked."""

    most: int
    why: str

    @classmethod
    def of(cls, packed_bytes: int, most_bytes: int | None) -> "Limit":
        """That of a file of `packed_bytes`, and of `most_bytes` where that is less."""
        by_ratio = max(_ALWAYS_UNPACKED, _MOST_TIMES * packed_bytes)
        if most_bytes is not None and most_bytes < by_ratio:
            return cls(most_bytes, "the limit for a dataset (EMISSARY_MAX_LARGE_UPLOAD_MB)")
        return cls(by_ratio, f"{_MOST_TIMES} times its packed size, which no real dataset does")

    def check(self, found: int, kind: str) -> None:
        """Raise InvalidInput when `found` bytes are more."""
        if found > self.most:
            raise InvalidInput(
                f"The {kind} file unpacks to more than {self.most // _MIB} MiB, {self.why}. Upload a smaller file, or "
                "several."
            )


class _Unpacked:
    """What a packed stream holds, up to a limit."""

    def __init__(self, stream: pa.NativeFile, packing: str, limit: Limit) -> None:
        self._stream, self._packing, self._limit, self._bytes = stream, packing, limit, 0

    def read(self, size: int) -> bytes:
        try:
            data: bytes = self._stream.read(size)
        except (OSError, pa.ArrowException) as error:
            raise InvalidInput(
                f"The {self._packing} file is cut off or damaged: it cannot be unpacked after {self._bytes} bytes of "
                "its content. Pack it again and upload it."
            ) from error
        self._bytes += len(data)
        self._limit.check(self._bytes, self._packing)
        return data


class _Utf16:
    """UTF-16 as UTF-8; its first `offset` bytes, the byte order mark, have been read."""

    def __init__(self, content: Content, encoding: str, offset: int) -> None:
        self._content, self._encoding, self._offset, self._ended = content, encoding, offset, False
        self._decoder = codecs.getincrementaldecoder(encoding)()

    def read(self, size: int) -> bytes:
        while not self._ended:
            # A UTF-16 unit of two bytes is at most three in UTF-8.
            data = self._content.read(max(1, size // 2))
            self._ended = not data
            start = self._offset - len(self._decoder.getstate()[0])
            try:
                text = self._decoder.decode(data, final=self._ended)
            except UnicodeDecodeError as error:
                raise self._not_text(start + error.start) from None
            if (nul := text.find("\0")) >= 0:
                raise self._not_text(start + len(text[:nul].encode(self._encoding)))
            self._offset += len(data)
            if text:
                return text.encode()
        return b""

    def _not_text(self, offset: int) -> InvalidInput:
        return InvalidInput(
            f"The file is not UTF-16 text, though it begins like it: the bytes at offset {offset} are not valid. Save "
            "the file as UTF-8 and upload it again."
        )
