"""Addresses that users name lead to the public internet, whatever they look like and resolve to."""

import asyncio
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from emissary import outbound
from emissary.settings import settings
from tests.web_server import Web, web_server

PRIVATE = [
    "127.0.0.1", "localhost", "127.1", "0x7f000001", "2130706433", "0", "10.1.2.3", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255", "[::1]", "[::]", "[fe80::1]",
    "[fd00:ec2::254]", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[2001:0:7f00:1::]",
]  # fmt: skip


@pytest.fixture
def web() -> Iterator[Web]:
    with web_server("127.0.0.1") as running:
        yield running


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[list[str]]]:
    """Names and the addresses that they resolve to, each time others. A fake, for there is no name server here."""
    known: dict[str, list[list[str]]] = {}
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        if host not in known:
            return real(host, port, *args, **more)
        found = known[host].pop(0)
        return [entry for address in found for entry in real(address, port, type=socket.SOCK_STREAM)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return known


def allow(monkeypatch: pytest.MonkeyPatch, *entries: str) -> None:
    monkeypatch.setattr(settings(), "allow_private_urls", entries)


def get(url: str) -> httpx.Response:
    with outbound.client() as http:
        return http.get(url)


@pytest.mark.parametrize("host", PRIVATE)
def test_address_that_is_not_public_is_not_connected_to(host: str, web: Web) -> None:
    with pytest.raises(outbound.AddressRefused, match="not on the public internet"):
        get(f"http://{host}:{web.port}/")
    assert web.asked == []


async def post(url: str) -> httpx.Response:
    async with outbound.async_client() as http:
        return await http.post(url, content=b"sent")


@pytest.mark.parametrize("host", PRIVATE)
def test_address_that_is_not_public_is_not_posted_to(host: str, web: Web) -> None:
    with pytest.raises(outbound.AddressRefused, match="not on the public internet"):
        asyncio.run(post(f"http://{host}:{web.port}/"))
    assert web.asked == []


def test_post_goes_where_it_was_checked_and_follows_no_redirect(
    web: Web, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, "127.0.0.1/32")
    web.answers["/a"] = (307, {"Location": f"{web.url}/b"}, b"")
    names["rebound.test"] = [["127.0.0.1"], ["127.0.0.3"]]
    assert asyncio.run(post(f"http://rebound.test:{web.port}/a")).status_code == 307
    ((path, headers),) = web.asked
    assert (path, headers["Host"], web.posted) == ("/a", f"rebound.test:{web.port}", [b"sent"])


@pytest.mark.parametrize("entry", ["127.0.0.0/8", "127.0.0.1", "files.test", "FILES.TEST"])
def test_what_the_operator_allows_is_called(
    entry: str, web: Web, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, "10.0.0.0/8", entry)
    web.put("/a", b"content")
    names["files.test"] = [["127.0.0.1"]]
    assert get(f"http://files.test:{web.port}/a").content == b"content"
    ((_, headers),) = web.asked
    assert headers["Host"] == f"files.test:{web.port}"


def test_public_address_beside_a_private_one_is_refused(web: Web, names: dict[str, list[list[str]]]) -> None:
    names["mixed.test"] = [["93.184.215.14", "127.0.0.1"]]
    with pytest.raises(outbound.AddressRefused, match=r"mixed\.test"):
        get(f"http://mixed.test:{web.port}/")


def test_name_is_resolved_once_and_the_connection_goes_where_it_was_checked(
    web: Web, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, "127.0.0.1/32")
    web.put("/a", b"checked")
    with web_server("127.0.0.3") as other:
        names["rebound.test"] = [["127.0.0.1"], ["127.0.0.3"]]
        assert get(f"http://rebound.test:{web.port}/a").content == b"checked"
        assert names["rebound.test"] == [["127.0.0.3"]]
        assert other.asked == []


def test_next_address_is_tried_where_one_cannot_be_connected_to(
    web: Web, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, "files.test")
    web.put("/a", b"content")
    names["files.test"] = [["127.0.0.9", "127.0.0.1"]]  # nothing listens on the first
    assert get(f"http://files.test:{web.port}/a").content == b"content"


def test_redirect_is_checked_as_a_request_is(
    web: Web, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(monkeypatch, "files.test")
    names["files.test"] = [["127.0.0.1"]] * 20
    web.put("/secret", b"secret")
    web.answers["/there"] = (302, {"Location": f"http://127.0.0.1:{web.port}/secret"}, b"")
    with pytest.raises(outbound.AddressRefused):
        get(f"http://files.test:{web.port}/there")
    assert [path for path, _ in web.asked] == ["/there"]
    web.answers["/file"] = (302, {"Location": "file:///etc/passwd"}, b"")
    with pytest.raises(httpx.UnsupportedProtocol):
        get(f"http://files.test:{web.port}/file")
    for step in range(6):
        web.answers[f"/{step}"] = (302, {"Location": f"/{step + 1}"}, b"")
    web.put("/6", b"arrived")
    assert get(f"http://files.test:{web.port}/1").content == b"arrived"
    with pytest.raises(httpx.TooManyRedirects):
        get(f"http://files.test:{web.port}/0")


def test_certificate_is_asked_for_and_checked_by_name(
    tmp_path: Path, names: dict[str, list[list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
            "2", "-subj", "/CN=files.test", "-addext", "subjectAltName=DNS:files.test", "-keyout",
            str(tmp_path / "key.pem"), "-out", str(tmp_path / "certificate.pem"),
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    asked: list[str | None] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    listening = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listening.accept()
        with pytest.raises(ssl.SSLError), connection:
            context.wrap_socket(connection, server_side=True).recv(1)

    server = threading.Thread(target=answer)
    server.start()
    allow(monkeypatch, "files.test")
    names["files.test"] = [["127.0.0.1"]]
    with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
        get(f"https://files.test:{listening.getsockname()[1]}/")
    server.join()
    listening.close()
    assert asked == ["files.test"]
