"""An artifact as a zip archive that is made while it is sent."""

import io
import zipfile
from collections.abc import Iterator

from emissary.store.artifacts import ArtifactStore, Manifest

_LARGE = 2**31  # from here on the sizes in an archive need 64 bits


class _Sent(io.RawIOBase):
    """What the archive's writer has written since it was last taken. It cannot be rewound, and the writer knows."""

    def __init__(self) -> None:
        self._content = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._content += data
        return len(data)

    def take(self) -> bytes:
        content = bytes(self._content)
        self._content.clear()
        return content


def zip_chunks(store: ArtifactStore, key: str, manifest: Manifest) -> Iterator[bytes]:
    """The artifact's files as a zip archive, piece by piece, with about 2 MiB of it in memory.

    Raises CorruptArtifact when a file is damaged, so that the download breaks off rather than seem whole.
    """
    sent = _Sent()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, file in sorted(manifest.files.items()):
            with archive.open(name, "w", force_zip64=file.bytes >= _LARGE) as entry:
                for chunk in store.chunks(key, name):
                    entry.write(chunk)
                    yield sent.take()
    yield sent.take()
