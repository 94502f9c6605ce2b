"""A file by HTTP."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import httpx

from emissary import outbound
from emissary.data import formats
from emissary.errors import InvalidInput, Unavailable
from emissary.schemas.sources import UrlSource
from emissary.settings import settings
from emissary.sources.fetched import Fetched
from emissary.store.tables import Json

LONGEST_SECONDS = 3600.0
_MIB = 1024 * 1024
_VALIDATORS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}


def check(source: UrlSource) -> None:
    """Raises InvalidInput where the file is not there or must not be fetched, Unavailable where nobody answers."""
    with _answer(source, {}):
        pass


def fetch(source: UrlSource, known: Sequence[Json], folder: Path) -> Fetched | None:
    """The file, in `folder`; None where its server says that it is what the last of `known` had.

    Raises as `check`, and InvalidInput for a file over EMISSARY_MAX_LARGE_UPLOAD_MB.
    """
    before = next((origin for origin in reversed(known) if origin.get("url") == source.url), {})
    validators = {header: before[name] for name, header in _VALIDATORS.items() if name in before}
    with _answer(source, validators) as answer:
        if answer.status_code == httpx.codes.NOT_MODIFIED:
            return None
        path = folder / "fetched"
        _save(answer, path)
        new = {name: answer.headers[name] for name in _VALIDATORS if name in answer.headers}
    return Fetched(path, _file_name(source), {"url": source.url} | new)


@contextmanager
def _answer(source: UrlSource, headers: Mapping[str, str]) -> Iterator[httpx.Response]:
    shown = httpx.URL(source.url).copy_with(query=None, fragment=None)  # a query may carry a signature
    # Packed content would be unpacked on the way, without a limit.
    wanted = {"Accept": "*/*", "Accept-Encoding": "identity"} | dict(headers)
    try:
        with outbound.client() as http, http.stream("GET", source.url, headers=wanted) as answer:
            if answer.is_success or (headers and answer.status_code == httpx.codes.NOT_MODIFIED):
                yield answer
                return
            raise _refusal(str(shown), answer.status_code)
    except outbound.AddressRefused as error:
        raise outbound.AddressRefused(f"gather.url: {error}") from error
    except httpx.TooManyRedirects as error:
        raise InvalidInput(
            f"gather.url: {shown} redirects more than {outbound.MOST_REDIRECTS} times; give the address where it ends."
        ) from error
    except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
        raise InvalidInput(f"gather.url: {shown} leads to what is no address of http(s) ({error}).") from error
    except httpx.HTTPError as error:
        raise Unavailable(
            f"gather.url: {shown} cannot be fetched ({str(error) or type(error).__name__}); see that the address is "
            "right and its server runs, then try again."
        ) from error


def _refusal(shown: str, status: int) -> InvalidInput | Unavailable:
    match status:
        case 404 | 410:
            return InvalidInput(f"gather.url: {shown} is not there ({status}); put it back, or change the pipeline.")
        case 401 | 403:
            return InvalidInput(f"gather.url: {shown} is not open to us ({status}); give one that needs no login.")
        case 429:
            return Unavailable(f"gather.url: the server of {shown} has had too many requests (429); try again later.")
    kind = Unavailable if status >= 500 else InvalidInput
    return kind(f"gather.url: {shown} was answered with status {status}, not with a file; look at its server.")


def _save(answer: httpx.Response, path: Path) -> None:
    most = settings().max_large_upload_mb
    until = time.monotonic() + LONGEST_SECONDS
    written = 0
    with path.open("wb") as file:
        for chunk in answer.iter_raw(_MIB):
            written += file.write(chunk)
            if written > most * _MIB:
                raise InvalidInput(
                    f"gather.url: the file is larger than the limit of {most} MiB (EMISSARY_MAX_LARGE_UPLOAD_MB)."
                )
            if time.monotonic() > until:
                raise Unavailable(f"gather.url: the file did not arrive within {LONGEST_SECONDS:.0f} s; try again.")


def _file_name(source: UrlSource) -> str:
    name = PurePosixPath(httpx.URL(source.url).path).name
    printable = "".join(letter for letter in name if letter.isprintable() and letter not in "/\\")[-100:].strip(" .")
    try:
        formats.named(printable)
    except InvalidInput:  # its content will tell
        return f"{printable[:90] or 'file'}.jsonl"
    return printable
