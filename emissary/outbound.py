"""HTTP to addresses that users name: to public ones only, so that nobody reaches into a network by way of the platform.

A name is resolved once, every address that it has is checked, and the connection goes to one of these, whatever the
name resolves to a moment later (DNS rebinding). TLS and the Host header keep the name. A redirect is a request like any
other.
"""

import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import anyio
import anyio.to_thread
import httpx

from emissary.errors import InvalidInput
from emissary.settings import settings

MOST_REDIRECTS = 5
_MOST_ADDRESSES = 4
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
# Threads of their own for asyncio: names that nobody resolves hold up nothing else.
_RESOLVING = anyio.CapacityLimiter(16)
_NAT64 = ip_network("64:ff9b::/96")
# Azure's host answers its guests at this public address.
_OF_PLATFORMS = (IPv4Address("168.63.129.16"),)


class AddressRefused(InvalidInput):
    """A host that is not public, and that EMISSARY_ALLOW_PRIVATE_URLS does not name."""

    code = "address_refused"


def client() -> httpx.Client:
    """An HTTP client that refuses private addresses with AddressRefused and follows at most five redirects.

    It takes no proxy from the environment: behind one, addresses could not be checked. Its timeouts are for each step
    of a request; how much is read, and for how long, is the caller's to bound.
    """
    return httpx.Client(
        transport=_PublicOnly(), timeout=_TIMEOUT, follow_redirects=True, max_redirects=MOST_REDIRECTS, trust_env=False
    )


def async_client(timeout: httpx.Timeout = _TIMEOUT) -> httpx.AsyncClient:
    """The same for asyncio, which follows no redirects."""
    return httpx.AsyncClient(transport=_AsyncPublicOnly(), timeout=timeout, follow_redirects=False, trust_env=False)


async def check(url: str) -> None:
    """Raises AddressRefused where `client` would refuse the address, InvalidInput where its name has no address."""
    try:
        await _resolved(httpx.URL(url))
    except httpx.ConnectError as error:
        raise InvalidInput(f"{error}; give an address whose host is known.") from error


class _PublicOnly(httpx.BaseTransport):
    """Sends each request to a checked address of its host."""

    def __init__(self) -> None:
        # A connection that is kept would serve another name at the same address, for which its certificate is not.
        self._inner = httpx.HTTPTransport(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The answer of the first address that can be connected to."""
        *others, last = _checked_addresses(request.url)[:_MOST_ADDRESSES]
        for address in others:
            try:
                return self._inner.handle_request(_sent_to(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return self._inner.handle_request(_sent_to(request, last))

    def close(self) -> None:
        """Close all connections."""
        self._inner.close()


class _AsyncPublicOnly(httpx.AsyncBaseTransport):
    """Sends each request to a checked address of its host."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The answer of the first address that can be connected to."""
        *others, last = (await _resolved(request.url))[:_MOST_ADDRESSES]
        for address in others:
            try:
                return await self._inner.handle_async_request(_sent_to(request, address))
            except (httpx.ConnectError, httpx.ConnectTimeout):
                continue
        return await self._inner.handle_async_request(_sent_to(request, last))

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()


async def _resolved(url: httpx.URL) -> list[str]:
    return await anyio.to_thread.run_sync(_checked_addresses, url, abandon_on_cancel=True, limiter=_RESOLVING)


def _sent_to(request: httpx.Request, address: str) -> httpx.Request:
    return httpx.Request(
        request.method,
        request.url.copy_with(host=address),
        headers=request.headers,  # with the Host
        stream=request.stream,
        extensions={**request.extensions, "sni_hostname": request.url.raw_host.decode("ascii")},
    )


def _checked_addresses(url: httpx.URL) -> list[str]:
    """The addresses of the host of `url`. Raises AddressRefused where one of them may not be connected to, and
    httpx.ConnectError where it has none.
    """
    host = url.raw_host.decode("ascii")
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise httpx.ConnectError(f"the name {host} cannot be resolved") from error
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not addresses:
        raise httpx.ConnectError(f"the name {host} has no address")
    names, networks = _allowed()
    for address in map(ip_address, addresses):
        if host.lower() in names or any(address in network for network in networks):
            continue
        if not _is_public(address):
            raise AddressRefused(
                f"The host {host} is not on the public internet, so it is not called; name another one, or have the "
                "operator allow it by EMISSARY_ALLOW_PRIVATE_URLS."
            )
    return addresses


def _is_public(address: IPv4Address | IPv6Address) -> bool:
    meant = [address, *_inside(address)]
    return all(each.is_global and not each.is_multicast and each not in _OF_PLATFORMS for each in meant)


def _inside(address: IPv4Address | IPv6Address) -> list[IPv4Address]:
    """The IPv4 addresses that an IPv6 address leads to."""
    if isinstance(address, IPv4Address):
        return []
    found = [address.ipv4_mapped, address.sixtofour, *(address.teredo or ())]
    if address in _NAT64:
        found.append(IPv4Address(int(address) & 0xFFFF_FFFF))
    return [each for each in found if each is not None]


def _allowed() -> tuple[set[str], list[IPv4Network | IPv6Network]]:
    names, networks = set(), []
    for entry in settings().allow_private_urls:
        try:
            networks.append(ip_network(entry))
        except ValueError:
            names.add(entry.lower())
    return names, networks
