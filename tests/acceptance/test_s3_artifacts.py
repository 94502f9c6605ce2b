"""The artifact store on a real S3 server."""

import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from emissary.errors import EmissaryError, NotFound, Unavailable
from emissary.store import s3_client
from emissary.store.parts import Arriving
from emissary.store.s3_artifacts import S3ArtifactStore
from tests.acceptance.conftest import S3Server
from tests.conftest import free_port
from tests.store.artifact_suite import KEY, ArtifactStoreSuite, Kept, made

pytestmark = pytest.mark.acceptance


class Bucket(Kept):
    """A store below a prefix of its own; seaweedfs sets volumes aside for a bucket, so all share one."""

    def __init__(self, client: Any, bucket: str, cache: Path) -> None:
        self.client, self.bucket, self.prefix = client, bucket, f"team/{uuid.uuid4().hex}"
        self.store = S3ArtifactStore(client, bucket, self.prefix, cache)
        self.address = f"s3://{bucket}/{self.prefix}"

    def names(self) -> list[str]:
        below = {"Bucket": self.bucket, "Prefix": f"{self.prefix}/"}
        listed = self.client.list_objects_v2(**below).get("Contents", [])
        uploads = self.client.list_multipart_uploads(**below).get("Uploads", [])
        return [entry["Key"].removeprefix(below["Prefix"]) for entry in listed + uploads]

    def replace(self, key: str, name: str, content: bytes | None) -> None:
        (found,) = [each for each in self.names() if each.startswith(f"{key}/") and each.endswith(f"/{name}")]
        target = {"Bucket": self.bucket, "Key": f"{self.prefix}/{found}"}
        if content is None:
            self.client.delete_object(**target)
        else:
            self.client.put_object(**target, Body=content)

    def remove_manifest(self, key: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"{self.prefix}/{key}/manifest.json")

    def send(self, arriving: Arriving, number: int, content: bytes) -> None:
        url = self.store.parts.url(arriving, number, 60)
        answer = httpx.put(url, content=content, trust_env=False, timeout=60)
        if answer.status_code == 404:
            raise NotFound(answer.text)
        answer.raise_for_status()


@pytest.fixture
def client(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in s3_server.variables.items():
        monkeypatch.setenv(name, value)
    return s3_client.connect()


@pytest.fixture
def kept(client: Any, s3_server: S3Server, tmp_path: Path) -> Bucket:
    return Bucket(client, s3_server.bucket, tmp_path / "cache")


class TestS3ArtifactStore(ArtifactStoreSuite):
    """All that every store does."""


def test_over_a_thousand_files_are_deleted(kept: Bucket) -> None:
    for number in range(1005):
        kept.client.put_object(Bucket=kept.bucket, Key=f"{kept.prefix}/many/{number}", Body=b"")
    kept.client.put_object(Bucket=kept.bucket, Key=f"{kept.prefix}/many-more", Body=b"")
    kept.store.delete("many")
    assert kept.names() == ["many-more"]


def test_folder_is_downloaded_once_and_again_when_the_copy_is_damaged(kept: Bucket, tmp_path: Path) -> None:
    kept.store.publish(KEY, made(tmp_path))
    folder = kept.store.folder(KEY)
    first = (folder / "adapter.bin").stat().st_ino
    assert (kept.store.folder(KEY) / "adapter.bin").stat().st_ino == first
    (folder / "adapter.bin").write_text("weightz")
    assert (kept.store.folder(KEY) / "adapter.bin").read_text() == "weights"
    kept.store.publish("other", made(tmp_path, "other"))
    other = kept.store.folder("other")
    kept.store.delete("training-jobs/tr-1")
    assert (folder.exists(), other.exists()) == (False, True)


def test_copy_that_nobody_used_for_a_week_is_removed(kept: Bucket, tmp_path: Path) -> None:
    for key in ("old", "used", "new"):
        kept.store.publish(key, made(tmp_path, key))
    then = time.time() - 8 * 24 * 3600
    folders = {key: kept.store.folder(key) for key in ("old", "used")}
    for folder in folders.values():
        os.utime(folder, (then, then))
    kept.store.folder("used")
    kept.store.folder("new")
    assert [folders[key].exists() for key in ("old", "used")] == [False, True]


def test_broken_off_publish_leaves_nothing(kept: Bucket, tmp_path: Path) -> None:
    source = made(tmp_path)
    os.mkfifo(source / "zz-last")  # is not a file, so it is left out
    (source / "z-unreadable").symlink_to("nowhere")
    assert set(kept.store.publish(KEY, source).files) == {"adapter.bin", "tokenizer/vocab.json"}
    with pytest.raises(ValueError, match="notes"):
        kept.store.publish("other", source, {"not": object()})  # type: ignore[dict-item]
    assert not [name for name in kept.names() if name.startswith("other/")]


def test_presigned_link_downloads_one_file_under_its_name_until_it_expires(kept: Bucket, tmp_path: Path) -> None:
    kept.store.publish(KEY, made(tmp_path))
    url = kept.store.download_url(KEY, "adapter.bin", "attachment; filename*=UTF-8''a%22b.bin", 60)
    answer = httpx.get(url, trust_env=False)
    assert (answer.status_code, answer.content) == (200, b"weights")
    assert answer.headers["content-disposition"] == "attachment; filename*=UTF-8''a%22b.bin"
    assert parse_qs(urlsplit(url).query)["X-Amz-Expires"] == ["60"]
    assert httpx.get(url.replace("adapter.bin", "manifest.json"), trust_env=False).status_code == 403
    assert httpx.put(url, content=b"x", trust_env=False).status_code == 403
    with pytest.raises(NotFound):
        kept.store.download_url(KEY, "manifest.json", "attachment", 60)


def test_part_of_another_size_does_not_count(kept: Bucket) -> None:
    state = kept.store.parts.begin("datasets/ds-1", "original.jsonl")
    arriving = Arriving("datasets/ds-1", "original.jsonl", 100, 100, state)
    httpx.put(kept.store.parts.url(arriving, 1, 60), content=b"x" * 101, trust_env=False)
    assert kept.store.parts.arrived(arriving) == set()


def test_what_is_wrong_with_the_server_is_said(
    s3_server: S3Server, kept: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = S3ArtifactStore(kept.client, "nobody-made-this", "", tmp_path)
    for call in (missing.check, lambda: missing.publish(KEY, made(tmp_path))):
        with pytest.raises(EmissaryError, match=r"EMISSARY_ARTIFACTS: the bucket 'nobody-made-this' does not exist"):
            call()
    for key, secret in (("reader", "reader-secret"), ("nobody", "x"), ("emissary", "wrong")):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        refused = S3ArtifactStore(s3_client.connect(), kept.bucket, kept.prefix, tmp_path)
        with pytest.raises(EmissaryError, match=rf"refuses access to the bucket '{kept.bucket}'.*AWS_ACCESS_KEY_ID"):
            refused.check()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    away = S3ArtifactStore(s3_client.connect(), kept.bucket, kept.prefix, tmp_path)
    for call in (away.check, lambda: away.manifest(KEY), lambda: away.publish(KEY, tmp_path)):
        with pytest.raises(Unavailable, match=r"cannot be reached.*AWS_ENDPOINT_URL"):
            call()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(EmissaryError, match=r"no credentials.*AWS_ACCESS_KEY_ID"):
        S3ArtifactStore(s3_client.connect(), kept.bucket, kept.prefix, tmp_path).check()


LARGE = """
import re, sys
from pathlib import Path
from emissary.store import s3_client
from emissary.store.s3_artifacts import S3ArtifactStore
bucket, folder, cache = sys.argv[1:]
store = S3ArtifactStore(s3_client.connect(), bucket, "", Path(cache))
store.check()
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
idle = peak()
store.publish("large", Path(folder))
published = peak()
store.folder("large")
downloaded = peak()
assert sum(map(len, store.chunks("large", "weights.bin"))) == 200 * 1024**2
print(idle, published - idle, downloaded - idle, peak() - idle)
"""


def test_large_file_goes_both_ways_in_bounded_memory(kept: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    with (source / "weights.bin").open("wb") as file:
        for _ in range(200):
            file.write(os.urandom(1024 * 1024))
    command = [sys.executable, "-c", LARGE, kept.bucket, str(source), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    idle, *extra = map(int, done.stdout.split())
    print(f"{idle} MiB idle; extra for publishing, downloading, streaming: {extra}")  # noqa: T201
    assert max(extra) < 100
