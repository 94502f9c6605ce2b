"""Copies of artifacts on this machine: made once, checked on every use, removed when nobody used them for a week."""

import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from emissary.store.artifacts import CorruptArtifact, Manifest, checked_key, damaged_file

_KEPT_SECONDS = 7 * 24 * 3600


class LocalCopies:
    """The copies in the folder `root`, each named by the artifact's key and its manifest's checksum."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str, manifest: Manifest, checksum: str, download: Callable[[str, Path], None]) -> Path:
        """The copy of the artifact; `download(name, path)` is called for its files when there is no sound one.

        Raises CorruptArtifact when a file that was downloaded is not what the manifest says; no copy is left then.
        """
        target = self.root / f"{_name(key)}@{checksum[:32]}"
        if target.is_dir():
            if damaged_file(target, manifest) is None:
                os.utime(target)
                return target
            shutil.rmtree(target)
        self._remove_unused()
        draft = self.root / f".{uuid.uuid4().hex}"
        draft.mkdir(parents=True)
        try:
            for name in manifest.files:
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                download(name, draft / name)
            if (damaged := damaged_file(draft, manifest)) is not None:
                raise CorruptArtifact(key, damaged)
            try:
                draft.rename(target)
            except OSError:
                if not target.is_dir():  # else another process has made the copy meanwhile
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        return target

    def forget(self, key: str) -> None:
        """Remove the copies of the artifact, or of all below a prefix of keys."""
        name = _name(key)
        for copy in self._all():
            if copy.name.startswith((f"{name}@", f"{name}{quote('/', safe='')}")):
                shutil.rmtree(copy, ignore_errors=True)

    def _all(self) -> list[Path]:
        return list(self.root.iterdir()) if self.root.is_dir() else []

    def _remove_unused(self) -> None:
        for copy in self._all():
            try:
                unused = time.time() - copy.stat().st_mtime > _KEPT_SECONDS
            except FileNotFoundError:  # another process was first
                continue
            if unused:
                shutil.rmtree(copy, ignore_errors=True)


def _name(key: str) -> str:
    return quote(str(checked_key(key)), safe="")
