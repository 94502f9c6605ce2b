"""The API's HTTP client that the command line uses."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from emissary.errors import EmissaryError, InvalidInput, Unavailable

# A dataset of 100 MB is validated within the request, and an answer on a CPU takes its time.
_TIMEOUT = httpx.Timeout(300.0, connect=5.0)
_DATA, _DONE = "data: ", "[DONE]"


class ApiError(EmissaryError):
    """What the API refused, in its own words."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            body = response.json()
        except ValueError:
            body = None
        told = body if isinstance(body, dict) else {"error": response.text}
        super().__init__(str(told.pop("error", response.text)), told.pop("code", None), details=told)
        self.status = response.status_code


@contextmanager
def opened(link: str) -> Iterator[httpx.Response]:
    """The file behind a signed link, to be read within; the key is not sent, for a link needs none.

    Raises EmissaryError where it cannot be fetched, Unavailable where the transfer breaks off.
    """
    try:
        with httpx.stream("GET", link, timeout=60, trust_env=False, follow_redirects=True) as response:
            if response.is_error:
                response.read()
                raise EmissaryError(f"The file cannot be fetched (status {response.status_code}): {response.text}")
            yield response
    except httpx.TransportError as error:
        raise Unavailable(f"The download broke off ({error}); try again.") from error


def _parsed(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise EmissaryError(f"What answers at {response.url} is not Emissary's API: it sent no JSON.") from error


class Client:
    """Calls the API at `url` with a key; answers are parsed JSON. Raises ApiError, and Unavailable where none is."""

    def __init__(self, url: str, api_key: str) -> None:
        if not api_key.isascii() or not api_key.isprintable():
            raise InvalidInput("The API key has characters that no key has; copy it again.")
        self.http = httpx.Client(base_url=url, headers={"X-API-Key": api_key}, timeout=_TIMEOUT, trust_env=False)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise Unavailable(
                f"Nothing answers at {self.http.base_url} ({error}); is `emissary up` running?"
            ) from error

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One request, arguments as httpx takes them; None for an answer without a body."""
        response = self._answer(method, path, **arguments)
        return _parsed(response) if response.content else None

    def _answer(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with self._reached():
            response = self.http.request(method, path, **arguments)
        if response.is_error:
            raise ApiError(response)
        return response

    def pages(self, path: str) -> Iterator[Any]:
        """The entries of a list that the API gives in pages, of all pages."""
        url: str | None = path
        while url is not None:
            response = self._answer("GET", url)
            yield from _parsed(response)
            url = response.links.get("next", {}).get("url")

    def get(self, path: str) -> Any:
        """GET."""
        return self.call("GET", path)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST of a JSON body."""
        return self.call("POST", path, json=body or {})

    def delete(self, path: str) -> None:
        """DELETE."""
        self.call("DELETE", path)

    def lines(self, path: str) -> Iterator[str]:
        """The lines of a GET that is answered with text, as they come."""
        with self._reached(), self.http.stream("GET", path) as response:
            if response.is_error:
                response.read()
                raise ApiError(response)
            # JSON may have other separators of lines within.
            rest = ""
            for part in response.iter_text():
                *whole, rest = (rest + part).split("\n")
                yield from whole

    def stream(self, path: str, body: dict[str, Any]) -> Iterator[Any]:
        """The server-sent events, each parsed JSON, that a POST is answered with; leaving them ends the request."""
        with self._reached(), self.http.stream("POST", path, json=body) as response:
            if response.is_error:
                response.read()
                raise ApiError(response)
            for line in response.iter_lines():
                if not line.startswith(_DATA) or line == _DATA + _DONE:
                    continue
                event = json.loads(line.removeprefix(_DATA))
                if "error" in event:
                    raise EmissaryError(f"The answer broke off: {event['error']}")
                yield event
