"""Where a pipeline's run takes its training rows from."""

import re
from typing import Annotated, Any, Literal

import httpx
from pydantic import AfterValidator, Discriminator, Field, Tag

from emissary.schemas.fields import Reference, Strict
from emissary.schemas.traffic import Only

References = Annotated[list[Reference], Field(min_length=1, max_length=100)]
S3_URI = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^\x00-\x1f\x7f]*)?"


def _s3_uri(value: str) -> str:
    if not re.fullmatch(S3_URI, value) or {".", ".."} & set(value.split("/")):
        raise ValueError("must be s3://bucket/prefix, without . and .. as parts of it")
    return value


def _s3_object(value: str) -> str:
    key = _s3_uri(value).removeprefix("s3://").partition("/")[2] if value.startswith("s3://") else value
    if not key or re.search(r"[\x00-\x1f\x7f]", key) or {".", ".."} & set(key.split("/")):
        raise ValueError("must be the key of an object, or s3://bucket/key, without . and .. as parts of it")
    return value


def _web_address(value: str) -> str:
    try:
        url = httpx.URL(value)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise ValueError(f"is no address ({error})") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("must be an address of https:// or http://")
    if url.userinfo:
        raise ValueError("must not have a user or password in it, for it is shown to everybody in the project")
    return value


def _hub_name(value: str) -> str:
    # As the hub has it (huggingface_hub.utils.validate_repo_id).
    if not re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", value, re.ASCII) or "--" in value or ".." in value:
        raise ValueError("must be the name of a dataset of the hub, as owner/name")
    return value


# Quotes and comments that end at the same place in each dialect of SQL, so without backslashes, dollars and nesting.
_COMMENT = r"--(?=\s)[^\r\n]*+(?=\r?\n|\Z)|/\*(?![!+M])(?:(?!/\*|\*/).)*+\*/"
_SINGLE = re.compile(
    rf"""((?:'[^'\\]*+'|"[^"\\]*+"|{_COMMENT}|(?!--|/\*)[^;'"\\`$\#])*+);?(?:\s|{_COMMENT})*+""", re.DOTALL
)
_SELECT = re.compile(r"(?:\s|\(|--[^\r\n]*+|/\*(?:(?!\*/).)*+\*/)*+(?:select|with)\b", re.DOTALL | re.IGNORECASE)


def _one_select(value: str) -> str:
    query = value.strip().removesuffix(";").rstrip()
    if "\0" in query:
        raise ValueError("must not contain NUL characters")
    if ";" in query:
        single = _SINGLE.fullmatch(query)
        if single is None:
            raise ValueError(
                "must be a single statement; one with ; in quotes or a comment must do without backslash, backtick, $ "
                "and #"
            )
        query = single[1].rstrip()
    if not _SELECT.match(query):
        raise ValueError("must begin with SELECT or WITH")
    return query


WebAddress = Annotated[str, Field(strict=True, max_length=2000), AfterValidator(_web_address)]
"""An address of http(s), without a password in it."""

S3Uri = Annotated[str, Field(strict=True, max_length=1000), AfterValidator(_s3_uri)]

S3Objects = Annotated[
    list[Annotated[str, Field(strict=True, min_length=1, max_length=1100), AfterValidator(_s3_object)]],
    Field(min_length=1, max_length=100),
]
"""Keys of objects in S3, or their s3:// URIs."""


class DatasetsSource(Strict):
    """Datasets of the project."""

    source: Literal["datasets"] = Field(default="datasets", description="Datasets of the project.")
    datasets: Literal["newest", "all"] | References = Field(
        default="newest",
        description="`newest`: the newest dataset that fits the task type, alone; `all`: all of these, merged; or ids "
        "of datasets to merge. A row that is in several is trained on once. The test dataset is never among them.",
    )


class _Fetched(Strict):
    merge: bool = Field(
        default=False,
        strict=True,
        description="Whether a run trains on all that the pipeline has fetched so far, each row once, instead of what "
        "is new alone.",
    )


class S3Source(_Fetched):
    """Objects in S3 that no run that came to a decision has had, by key and ETag."""

    source: Literal["s3"] = Field(description="Objects below a prefix in S3.")
    uri: S3Uri = Field(
        description="Prefix of the objects, within a connection that the operator gave the organization.",
        examples=["s3://lake/tickets/"],
    )


class UrlSource(_Fetched):
    """A file on the web; it is new when its content is."""

    source: Literal["url"] = Field(description="A file by HTTP.")
    url: WebAddress = Field(
        description="Address of the file; a public one, unless the operator allows others.",
        examples=["https://example.com/tickets.jsonl"],
    )


class HubSource(_Fetched):
    """A dataset of the Hugging Face hub; it is new when its revision and its content are."""

    source: Literal["hub"] = Field(description="A dataset of the Hugging Face hub.")
    dataset: Annotated[str, Field(strict=True, max_length=200), AfterValidator(_hub_name)] = Field(
        description="Its name.", examples=["owner/name"]
    )
    config: Reference | None = Field(default=None, description="Which configuration, where it has several.")
    split: Reference | None = Field(default=None, description="Which split, where it has several.")
    revision: Reference | None = Field(default=None, description="Branch, tag or commit; default the newest.")


class SqlSource(_Fetched):
    """What a query finds; it is new when the rows are, in their order."""

    source: Literal["sql"] = Field(description="A query of a database.")
    connection: Reference = Field(description="Name of a connection that the operator gave the organization.")
    query: Annotated[str, Field(strict=True, max_length=20_000), AfterValidator(_one_select)] = Field(
        description="One SELECT whose columns are called as the fields of a row are. ORDER BY keeps it the same.",
        examples=["SELECT question AS prompt, answer AS completion FROM tickets ORDER BY id"],
    )


class TrafficSource(_Fetched):
    """Captured traffic of a deployment of the project: what no run that came to a decision has had."""

    source: Literal["traffic"] = Field(description="Captured traffic of a deployment.")
    deployment_id: Reference = Field(description="The deployment, of the task type that is trained.")
    only: Only = Field(
        default="reviewed",
        description="`corrected`: what people corrected; `reviewed`: also what they accepted; `all`: also what nobody "
        "has looked at, by which a model learns its own mistakes.",
    )
    datasets: References | None = Field(
        default=None,
        description="Ids of datasets that every run trains on beside that, such as what the model learnt from first.",
    )


OutsideSource = S3Source | UrlSource | HubSource | SqlSource
"""Those outside of the platform."""

FetchedSource = OutsideSource | TrafficSource
"""Those whose data becomes a dataset of the project."""

_KINDS = ("datasets", "s3", "url", "hub", "sql", "traffic")


def _kind(value: Any) -> str | None:
    found = value.get("source", "datasets") if isinstance(value, dict) else getattr(value, "source", None)
    return f"source={found}" if found in _KINDS else None


# The tags are in the place of an error, where "source=" tells them from fields.
Gather = Annotated[
    Annotated[DatasetsSource, Tag("source=datasets")]
    | Annotated[S3Source, Tag("source=s3")]
    | Annotated[UrlSource, Tag("source=url")]
    | Annotated[HubSource, Tag("source=hub")]
    | Annotated[SqlSource, Tag("source=sql")]
    | Annotated[TrafficSource, Tag("source=traffic")],
    Discriminator(
        _kind,
        custom_error_type="unknown_source",
        custom_error_message=f"must be one of {', '.join(_KINDS)}",
        custom_error_context={"field": "source"},
    ),
]
"""One of these; without `source`, datasets of the project."""
