"""The catalogue of base models and the hyperparameters of a training job on one of them."""

import json
import re
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from emissary.errors import InvalidInput
from emissary.schemas.parameters import GrpoParameters, SftParameters
from emissary.schemas.training_jobs import TaskType

_SHOWN_PROBLEMS = 5
# Also a folder below another: no part of it begins with a dot.
_REPOSITORY = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}", re.ASCII)


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PackageSource(_Entry):
    """A model inside a wheel of a Python package index."""

    package: str
    version: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="Of the wheel.")
    size: int = Field(gt=0, description="Of the wheel, in bytes.")
    gguf: str | None = Field(default=None, description="Path in the wheel of a GGUF file, which is converted.")
    folder: str | None = Field(default=None, description="Path in the wheel of a folder that is the model.")

    @model_validator(mode="after")
    def _one_member(self) -> Self:
        if (self.gguf is None) == (self.folder is None):
            raise ValueError("give either gguf or folder")
        return self


class HubSource(_Entry):
    """A model repository on the Hugging Face hub."""

    repo: str = Field(pattern="^[^/]+/[^/]+$")


class BaseModelEntry(_Entry):
    """A base model: where its files come from, what it is fit for, and its default hyperparameters."""

    name: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)?$", description="Also the name of its folder.")
    source: PackageSource | HubSource
    hub: str | None = Field(
        default=None, pattern="^[^/]+/[^/]+$", description="Its name on the hub, if not `source`'s."
    )
    license: str | None = Field(default=None, description="Its license, as the hub names it.")
    type: Literal["completion", "classification", "embeddings", "chat"]
    task_types: tuple[TaskType, ...] = Field(min_length=1)
    context: int = Field(gt=0, description="Longest input in tokens.")
    parameter_template: dict[str, Any] = Field(description="Default hyperparameters of a training job, all of them.")

    @property
    def short_name(self) -> str:
        """The name without the owner of a repository, as other names are made of it."""
        return self.name.rsplit("/", maxsplit=1)[-1]

    @property
    def hub_name(self) -> str | None:
        """Its repository on the Hugging Face hub, where that is known."""
        return self.source.repo if isinstance(self.source, HubSource) else self.hub

    @property
    def untrained_tasks(self) -> tuple[TaskType, ...]:
        """What the model does untrained: the first of its task types; outside the catalogue that is not known."""
        return self.task_types[:1] if self.name in catalogue() else ("text-generation", "embedding")

    @model_validator(mode="after")
    def _template_is_complete(self) -> Self:
        SftParameters.model_validate(self.parameter_template)
        return self


@lru_cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("models.yaml").read_text(encoding="utf-8"))
    return content


@lru_cache
def catalogue() -> dict[str, BaseModelEntry]:
    """All base models of models.yaml by name, in the file's order; read once."""
    return {name: BaseModelEntry(name=name, **entry) for name, entry in _content()["models"].items()}


def grpo_template(entry: BaseModelEntry) -> dict[str, Any]:
    """The default hyperparameters of GRPO on `entry`; empty where it does not generate text."""
    return dict(_content()["templates"]["grpo"]) if "text-generation" in entry.task_types else {}


def find(name: str) -> BaseModelEntry | None:
    """The base model `name`: of the catalogue, or `owner/name` for a repository of the Hugging Face hub; else None."""
    if name in catalogue():
        return catalogue()[name]
    return _of_hub(name) if _REPOSITORY.fullmatch(name) and "--" not in name and ".." not in name else None


def get(name: str) -> BaseModelEntry:
    """The base model `name`, see `find`; raises InvalidInput when there is none of that name."""
    entry = find(name)
    if entry is None:
        raise InvalidInput(f"base_model: {_unknown(name, list(catalogue()))}", code="base_model_unknown")
    return entry


@lru_cache
def _of_hub(repository: str) -> BaseModelEntry:
    return BaseModelEntry(name=repository, source=HubSource(repo=repository), **_content()["outside_catalogue"])


def resolve_parameters(
    entry: BaseModelEntry, requested: dict[str, Any], technique: Literal["SFT", "GRPO"] = "SFT"
) -> dict[str, Any]:
    """The hyperparameters of a training job on `entry`: its template, with `requested` over it.

    Raises InvalidInput with a sentence that names each parameter that is unknown, of the wrong type or out of range.
    """
    template = grpo_template(entry) if technique == "GRPO" else entry.parameter_template
    known = GrpoParameters if technique == "GRPO" else SftParameters
    if not template:
        raise InvalidInput(f"base_model: training of {entry.name} is not supported by this version.")
    try:
        resolved = known.model_validate({**template, **requested})
    except ValidationError as error:
        names = list(dict.fromkeys(str(problem["loc"][0]) for problem in error.errors()))
        problems = [_problem(known, name, requested[name]) for name in names[:_SHOWN_PROBLEMS]]
        if (more := len(names) - _SHOWN_PROBLEMS) > 0:
            problems.append(f"{more} more like these")
        raise InvalidInput("; ".join(problems) + ".", code="invalid_parameters") from error
    if resolved.max_length > entry.context:
        raise InvalidInput(
            f"parameters.max_length: {resolved.max_length} is longer than the context of {entry.name}, "
            f"{entry.context} tokens.",
            code="invalid_parameters",
        )
    return resolved.model_dump()


def _problem(parameters: type[BaseModel], name: str, value: object) -> str:
    fields = parameters.model_json_schema()["properties"]
    if name not in fields:
        return f"parameters.{_shown_name(name)}: {_unknown(name, list(fields)).rstrip('.')}"
    return f"parameters.{name}: {_shown(value)} is not {_allowed(fields[name])}"


def _unknown(name: str, known: list[str]) -> str:
    by_lower = {one.lower(): one for one in known}
    close = get_close_matches(name[:100].lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[close[0]]}? Known" if close else "known"
    return f"{_shown_name(name)} is unknown; {hint} are {', '.join(known)}."


def _allowed(field: dict[str, Any]) -> str:
    if "anyOf" in field:
        return ", or ".join(map(_allowed, field["anyOf"]))
    if "const" in field:
        return json.dumps(field["const"])
    if "enum" in field:
        return f"one of {', '.join(field['enum'])}"
    if field["type"] == "boolean":
        return "true or false"
    if field["type"] == "string":
        return f"a text of {field['minLength']} to {field['maxLength']} characters"
    low = f"above {field['exclusiveMinimum']:g}" if "exclusiveMinimum" in field else f"from {field['minimum']:g}"
    if field["type"] == "integer":
        return f"a whole number from {field['minimum']} to {field['maximum']}"
    if "exclusiveMaximum" in field:
        return f"a number {low} to below {field['exclusiveMaximum']:g}"
    return f"a number {low} to {field['maximum']:g}"


def _shown(value: object) -> str:
    """`value` as JSON writes it, shortened, so that the sentence stays one line."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = json.dumps(value, default=repr)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _shown_name(name: str) -> str:
    shown = name[:60] + ("…" if len(name) > 60 else "")
    return shown if shown.isprintable() and shown else repr(shown)
