"""What every artifact store must do: complete or not there, checked, published once."""

import os
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from pathlib import Path

import pytest

from emissary.errors import InvalidInput, NotFound
from emissary.store.artifacts import ArtifactStore, CorruptArtifact
from emissary.store.parts import Arriving

KEY = "training-jobs/tr-1/checkpoints/1"


class Kept(ABC):
    """A store, and how a test gets at what it keeps."""

    store: ArtifactStore
    address: str
    """As EMISSARY_ARTIFACTS has it."""

    @abstractmethod
    def names(self) -> list[str]:
        """All that is kept, by names that begin with the key."""

    @abstractmethod
    def replace(self, key: str, name: str, content: bytes | None) -> None:
        """Replace the content of a published file, or (None) remove it."""

    @abstractmethod
    def remove_manifest(self, key: str) -> None:
        """Leave the artifact as a publisher that was killed leaves it."""

    @abstractmethod
    def send(self, arriving: Arriving, number: int, content: bytes) -> None:
        """Send a part the way that a client's reaches the store."""


def made(tmp_path: Path, name: str = "made", text: str = "weights") -> Path:
    folder = tmp_path / name
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "adapter.bin").write_text(text)
    (folder / "tokenizer" / "vocab.json").write_text("{}")
    return folder


KILLED = """
import os, sys
from pathlib import Path
from emissary.store import artifacts
store = artifacts.artifact_store()
module = sys.modules[type(store).__module__]
real, known = module.ArtifactFile, []
def killing(**fields):
    known.append(fields)
    if len(known) == 2:
        os.kill(os.getpid(), 9)
    return real(**fields)
module.ArtifactFile = killing
store.publish(sys.argv[1], Path(sys.argv[2]))
"""


class ArtifactStoreSuite:
    """Inherited by the tests of each store, which give a fixture `kept`."""

    @pytest.fixture
    def store(self, kept: Kept) -> ArtifactStore:
        return kept.store

    def test_check_passes(self, store: ArtifactStore, kept: Kept) -> None:
        store.check()
        assert kept.names() == []

    def test_keys_are_those_of_complete_artifacts_below_a_folder(
        self, store: ArtifactStore, kept: Kept, tmp_path: Path
    ) -> None:
        keys = [f"training-jobs/tr-1/checkpoints/{number}" for number in (1, 2, 10)]
        for key in (*keys, "training-jobs/tr-10/checkpoints/1"):
            store.publish(key, made(tmp_path, key))
        assert sorted(store.keys("training-jobs/tr-1")) == sorted(keys)
        kept.remove_manifest(keys[0])
        assert sorted(store.keys("training-jobs/tr-1/checkpoints")) == sorted(keys[1:])
        assert store.keys("training-jobs/tr-2") == []

    def test_damaged_manifest_is_told_and_replaced_by_the_next_publisher(
        self, store: ArtifactStore, kept: Kept, tmp_path: Path
    ) -> None:
        store.publish(KEY, made(tmp_path))
        kept.replace(KEY, "manifest.json", b'{"files": {"adapt')
        with pytest.raises(CorruptArtifact, match=r"The file manifest\.json of the artifact"):
            store.manifest(KEY)
        with pytest.raises(CorruptArtifact):
            store.folder(KEY)
        store.publish(KEY, made(tmp_path, "again", "other weights"))
        assert (store.folder(KEY) / "adapter.bin").read_text() == "other weights"

    def test_published_files_come_back_with_their_manifest(self, store: ArtifactStore, tmp_path: Path) -> None:
        source = made(tmp_path)
        manifest = store.publish(KEY, source, {"epoch": 1})
        assert set(manifest.files) == {"adapter.bin", "tokenizer/vocab.json"}
        assert manifest.files["adapter.bin"].bytes == len("weights")
        assert manifest.notes == {"epoch": 1}
        assert store.manifest(KEY) == manifest
        assert (store.folder(KEY) / "tokenizer" / "vocab.json").read_text() == "{}"
        assert store.file(KEY, "adapter.bin").read_text() == "weights"
        assert b"".join(store.chunks(KEY, "adapter.bin")) == b"weights"
        assert (source / "adapter.bin").exists()

    def test_move_gives_the_files_away(self, store: ArtifactStore, tmp_path: Path) -> None:
        source = made(tmp_path)
        store.publish(KEY, source, move=True)
        assert store.file(KEY, "adapter.bin").read_text() == "weights"
        assert not (source / "adapter.bin").exists()

    def test_second_publisher_loses_and_leaves_nothing(self, store: ArtifactStore, kept: Kept, tmp_path: Path) -> None:
        first = store.publish(KEY, made(tmp_path))
        before = kept.names()
        assert store.publish(KEY, made(tmp_path, "other", "other weights")) == first
        assert store.file(KEY, "adapter.bin").read_text() == "weights"
        assert kept.names() == before
        assert len(before) == 3

    def test_what_a_killed_publisher_left_is_removed(self, store: ArtifactStore, kept: Kept, tmp_path: Path) -> None:
        environment = os.environ | {"EMISSARY_ARTIFACTS": kept.address}
        command = [sys.executable, "-c", KILLED, KEY, str(made(tmp_path))]
        assert subprocess.run(command, env=environment, check=False).returncode == -9
        assert kept.names()
        assert store.manifest(KEY) is None
        store.publish(KEY, tmp_path / "made")
        store.clear_drafts()
        assert len(kept.names()) == 3
        assert store.file(KEY, "adapter.bin").read_text() == "weights"

    def test_of_publishers_at_the_same_moment_one_wins_whole(
        self, store: ArtifactStore, kept: Kept, tmp_path: Path
    ) -> None:
        sources = [made(tmp_path, f"made-{number}", f"weights {number}") for number in range(8)]
        start = threading.Barrier(len(sources))
        manifests = []

        def publish(source: Path) -> None:
            start.wait()
            manifests.append(store.publish(KEY, source))

        threads = [threading.Thread(target=publish, args=(source,)) for source in sources]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(manifests) == len(sources)
        assert all(manifest == store.manifest(KEY) for manifest in manifests)
        store.folder(KEY)
        assert len(kept.names()) == 3

    def test_artifact_without_a_manifest_is_not_there_and_is_published_over(
        self, store: ArtifactStore, kept: Kept, tmp_path: Path
    ) -> None:
        store.publish(KEY, made(tmp_path))
        kept.remove_manifest(KEY)
        assert store.manifest(KEY) is None
        with pytest.raises(NotFound, match="not complete"):
            store.folder(KEY)
        for read in (store.file, lambda key, name: list(store.chunks(key, name))):
            with pytest.raises(NotFound):
                read(KEY, "adapter.bin")
        store.publish(KEY, made(tmp_path, "again", "new weights"))
        assert store.file(KEY, "adapter.bin").read_text() == "new weights"

    @pytest.mark.parametrize("content", [b"weightz", b"weights and more", None], ids=["one byte", "longer", "missing"])
    def test_damaged_file_is_found_and_named(
        self, store: ArtifactStore, kept: Kept, tmp_path: Path, content: bytes | None
    ) -> None:
        store.publish(KEY, made(tmp_path))
        kept.replace(KEY, "adapter.bin", content)
        for read in (store.folder, lambda key: list(store.chunks(key, "adapter.bin"))):
            with pytest.raises(CorruptArtifact, match=rf"adapter.bin of the artifact {KEY} is damaged"):
                read(KEY)

    def test_unknown_artifact_and_unknown_file_are_not_found(self, store: ArtifactStore, tmp_path: Path) -> None:
        store.publish(KEY, made(tmp_path))
        assert store.manifest("datasets/ds-1") is None
        with pytest.raises(NotFound):
            store.folder("datasets/ds-1")
        for name in ("../1/adapter.bin", "manifest.json", "tokenizer", "/etc/passwd"):
            with pytest.raises(NotFound):
                store.file(KEY, name)
            with pytest.raises(NotFound):
                list(store.chunks(KEY, name))

    @pytest.mark.parametrize(
        "key", ["../secret", "datasets/../../secret", "/etc", "", ".", "datasets/./x", "datasets/.."]
    )
    def test_key_that_leaves_the_store_is_refused(self, store: ArtifactStore, tmp_path: Path, key: str) -> None:
        source = made(tmp_path)
        for call in (store.manifest, store.folder, store.delete, lambda key: store.publish(key, source)):
            with pytest.raises(ValueError, match="not an artifact key"):
                call(key)

    def test_delete_removes_an_artifact_or_all_below_a_prefix(
        self, store: ArtifactStore, kept: Kept, tmp_path: Path
    ) -> None:
        source = made(tmp_path)
        for number in (1, 2, 11):
            store.publish(f"training-jobs/tr-1/checkpoints/{number}", source)
        store.publish("training-jobs/tr-12/checkpoints/1", source)
        store.delete(KEY)
        assert store.manifest(KEY) is None
        for number in (2, 11):
            assert store.manifest(f"training-jobs/tr-1/checkpoints/{number}") is not None
        store.delete("training-jobs/tr-1")
        assert all(name.startswith("training-jobs/tr-12/") for name in kept.names())
        assert store.manifest("training-jobs/tr-12/checkpoints/1") is not None
        store.delete("training-jobs/tr-1")

    def test_file_that_came_in_parts_is_published(self, store: ArtifactStore, kept: Kept) -> None:
        arriving, content = self.begun(store)
        assert list(arriving.numbers) == [1, 2]
        kept.send(arriving, 2, content[arriving.part_bytes :])
        assert store.parts.arrived(arriving) == {2}
        kept.send(arriving, 1, content[: arriving.part_bytes])
        assert store.parts.arrived(arriving) == {1, 2}
        assert store.manifest(arriving.key) is None
        with store.parts.assembled(arriving) as path:
            assert path.read_bytes() == content
        with store.parts.assembled(arriving) as path:  # again, as after a kill
            store.parts.publish(arriving, path, {"file": arriving.file})
        assert store.file(arriving.key, "original.jsonl").read_bytes() == content
        assert len([name for name in kept.names() if not name.endswith("manifest.json")]) == 1

    def test_part_may_be_sent_again(self, store: ArtifactStore, kept: Kept) -> None:
        arriving, content = self.begun(store)
        for _ in range(2):
            kept.send(arriving, 1, content[: arriving.part_bytes])
        kept.send(arriving, 2, content[arriving.part_bytes :])
        with store.parts.assembled(arriving) as path:
            assert path.read_bytes() == content

    def test_file_deleted_between_its_parts_leaves_nothing(self, store: ArtifactStore, kept: Kept) -> None:
        arriving, content = self.begun(store)
        kept.send(arriving, 1, content[: arriving.part_bytes])
        store.delete(arriving.key)
        assert store.parts.arrived(arriving) == set()
        assert kept.names() == []
        with pytest.raises((NotFound, InvalidInput)):
            kept.send(arriving, 1, content[: arriving.part_bytes])
        store.delete(arriving.key)

    def test_whole_file_deleted_before_it_is_published_leaves_nothing(self, store: ArtifactStore, kept: Kept) -> None:
        arriving, content = self.begun(store)
        kept.send(arriving, 1, content[: arriving.part_bytes])
        kept.send(arriving, 2, content[arriving.part_bytes :])
        with store.parts.assembled(arriving):
            pass
        store.delete(arriving.key)
        assert kept.names() == []

    def begun(self, store: ArtifactStore) -> tuple[Arriving, bytes]:
        """A file of one part of 5 MiB, the least that S3 takes, and one of 1 byte."""
        part_bytes = 5 * 1024 * 1024
        state = store.parts.begin("datasets/ds-1", "original.jsonl")
        arriving = Arriving("datasets/ds-1", "original.jsonl", part_bytes + 1, part_bytes, state)
        return arriving, os.urandom(arriving.bytes)
