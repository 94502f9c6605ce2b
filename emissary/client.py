"""The API's HTTP client that the command line uses."""

from typing import Any

import httpx

from emissary.errors import EmissaryError, Unavailable

# A dataset of 100 MB is validated within the request, and an answer on a CPU takes its time.
_TIMEOUT = httpx.Timeout(300.0, connect=5.0)


class ApiError(EmissaryError):
    """What the API refused, in its own words."""

    def __init__(self, response: httpx.Response) -> None:
        try:
            body = response.json()
        except ValueError:
            body = {"error": response.text}
        super().__init__(str(body.get("error", response.text)), body.get("code"))
        self.status = response.status_code


class Client:
    """Calls the API at `url` with a key; answers are parsed JSON. Raises ApiError, and Unavailable where none is."""

    def __init__(self, url: str, api_key: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"X-API-Key": api_key}, timeout=_TIMEOUT, trust_env=False)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One request, arguments as httpx takes them; None for an answer without a body."""
        try:
            response = self.http.request(method, path, **arguments)
        except httpx.TransportError as error:
            raise Unavailable(
                f"Nothing answers at {self.http.base_url} ({error}); is `emissary up` running?"
            ) from error
        if response.is_error:
            raise ApiError(response)
        return response.json() if response.content else None

    def get(self, path: str) -> Any:
        """GET."""
        return self.call("GET", path)

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST of a JSON body."""
        return self.call("POST", path, json=body or {})
