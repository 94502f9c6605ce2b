"""Files from a real web server on this machine, which the operator allows."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from emissary.errors import EmissaryError, InvalidInput, Unavailable
from emissary.schemas.sources import UrlSource
from emissary.settings import settings
from emissary.sources import url
from tests.conftest import free_port
from tests.web_server import ADDRESS, Web, web_server

ROWS = b'{"prompt": "a", "completion": "b"}\n'


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(settings(), "allow_private_urls", (ADDRESS,))
    with web_server() as running:
        yield running


def source(address: str) -> UrlSource:
    return UrlSource(source="url", url=address)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/data/tickets.csv", "tickets.csv"),
        ("/tickets.jsonl.gz?signature=abc", "tickets.jsonl.gz"),
        ("/export", "export.jsonl"),
        ("/export.php", "export.php.jsonl"),
        ("/", "file.jsonl"),
        ("/a%0Ab.json", "ab.json"),
    ],
)
def test_file_is_fetched_under_a_name_that_says_its_format(web: Web, tmp_path: Path, path: str, name: str) -> None:
    web.put(path.partition("?")[0], ROWS)
    found = url.fetch(source(f"{web.url}{path}"), [], tmp_path)
    assert found is not None
    assert (found.path.read_bytes(), found.file_name) == (ROWS, name)


def test_file_is_kept_as_it_was_sent(web: Web, tmp_path: Path) -> None:
    packed = gzip.compress(ROWS)
    found = url.fetch(source(web.put("/a.jsonl", packed, **{"Content-Encoding": "gzip"})), [], tmp_path)
    assert found is not None
    assert found.path.read_bytes() == packed
    assert web.asked[-1][1]["Accept-Encoding"] == "identity"


def test_unchanged_file_is_not_sent_again(web: Web, tmp_path: Path) -> None:
    address = web.put("/a.jsonl", ROWS, ETag='"one"', **{"Last-Modified": "Tue, 24 Nov 2026 10:00:00 GMT"})
    first = url.fetch(source(address), [], tmp_path)
    assert first is not None
    assert first.origin == {"url": address, "etag": '"one"', "last-modified": "Tue, 24 Nov 2026 10:00:00 GMT"}
    other = {"url": f"{web.url}/other", "etag": '"other"'}
    assert url.fetch(source(address), [first.origin, other], tmp_path) is None
    assert web.asked[-1][1]["If-Modified-Since"] == "Tue, 24 Nov 2026 10:00:00 GMT"
    web.put("/a.jsonl", ROWS * 2, ETag='"two"')
    second = url.fetch(source(address), [first.origin, other], tmp_path)
    assert second is not None
    assert second.origin["etag"] == '"two"'
    assert url.fetch(source(address), [first.origin, second.origin], tmp_path) is None


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (404, InvalidInput, "is not there"),
        (410, InvalidInput, "is not there"),
        (403, InvalidInput, "needs no login"),
        (304, InvalidInput, "status 304"),
        (429, Unavailable, "too many requests"),
        (503, Unavailable, "status 503"),
    ],
)
def test_answer_without_a_file_is_told(
    web: Web, tmp_path: Path, status: int, kind: type[EmissaryError], words: str
) -> None:
    web.answers["/a.jsonl"] = (status, {}, b"")
    address = source(f"{web.url}/a.jsonl?signature=secret")
    for call in (lambda: url.check(address), lambda: url.fetch(address, [], tmp_path)):
        with pytest.raises(kind, match=rf"^gather\.url: .*{words}") as raised:
            call()
        assert "secret" not in str(raised.value)


def test_redirect_leads_to_the_file_but_not_into_the_network(web: Web, tmp_path: Path) -> None:
    web.put("/a.jsonl", ROWS)
    web.answers["/moved"] = (301, {"Location": "/a.jsonl"}, b"")
    found = url.fetch(source(f"{web.url}/moved"), [], tmp_path)
    assert found is not None
    assert found.path.read_bytes() == ROWS
    web.answers["/inside"] = (302, {"Location": f"http://127.0.0.1:{web.port}/"}, b"")
    with pytest.raises(InvalidInput, match=r"^gather\.url: The host 127\.0\.0\.1 is not on the public"):
        url.fetch(source(f"{web.url}/inside"), [], tmp_path)
    web.answers["/loop"] = (302, {"Location": "/loop"}, b"")
    with pytest.raises(InvalidInput, match="redirects more than 5 times"):
        url.fetch(source(f"{web.url}/loop"), [], tmp_path)


def test_file_over_the_limit_is_refused(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings(), "max_large_upload_mb", 1)
    assert url.fetch(source(web.put("/a.jsonl", b" " * 2**20)), [], tmp_path) is not None
    with pytest.raises(InvalidInput, match="larger than the limit of 1 MiB"):
        url.fetch(source(web.put("/a.jsonl", b" " * 2**20 + b" ")), [], tmp_path)


def test_server_that_is_away_is_told(web: Web, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"^gather\.url: .* cannot be fetched"):
        url.fetch(source(f"http://{ADDRESS}:{free_port()}/a.jsonl"), [], tmp_path)
