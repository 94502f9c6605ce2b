"""The contract (docs/emissary-openapi.yaml) as data, and responses held against it."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jsonschema_rs
import yaml

from emissary.settings import PROJECT_ROOT

Json = dict[str, Any]


@dataclass(frozen=True)
class Operation:
    """One operation of an OpenAPI document."""

    id: str
    method: str
    path: str
    definition: Json

    @property
    def codes(self) -> set[int]:
        """The documented status codes."""
        return {int(code) for code in self.definition["responses"]}


@cache
def contract() -> Json:
    """The contract, its slips put right: types that JSON Schema does not have, a misplaced `required`, and `oneOf`s
    that one value fits twice (3 is a number and an integer), which are read as `anyOf`.
    """
    content = yaml.safe_load((PROJECT_ROOT / "docs/emissary-openapi.yaml").read_text(encoding="utf-8"))
    return dict(_righted(content))


def _righted(node: Any) -> Any:
    if isinstance(node, list):
        return [_righted(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {("anyOf" if key == "oneOf" else str(key)): _righted(value) for key, value in node.items()}
    if isinstance(node.get("type"), list):
        node["type"] = ["null" if one is None else one for one in node["type"]]
    elif isinstance(node.get("type"), str):
        node["type"] = {"float": "number", "int": "integer"}.get(node["type"], node["type"])
    properties = node.get("properties")
    if isinstance(properties, dict) and isinstance(properties.get("required"), list):
        node["required"] = properties.pop("required")
    return node


def operations(document: Json) -> dict[str, Operation]:
    """All operations of the document by their id."""
    found = [
        Operation(definition["operationId"], method.upper(), path, definition)
        for path, item in document["paths"].items()
        for method, definition in item.items()
    ]
    assert len({operation.id for operation in found}) == len(found)
    return {operation.id: operation for operation in found}


def resolved(document: Json, node: Json) -> Json:
    """`node`, or what its `$ref` refers to."""
    while "$ref" in node:
        reference, node = node["$ref"], document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]
    return node


def response_schema(document: Json, operation: Operation, status: int) -> Json | None:
    """The JSON schema of a documented response; None where it has no JSON body."""
    response = resolved(document, operation.definition["responses"][str(status)])
    schema = response.get("content", {}).get("application/json", {}).get("schema")
    return dict(schema) if schema else None


def request_schema(document: Json, operation: Operation) -> Json | None:
    """The schema of the operation's request body, JSON or form."""
    contents = operation.definition.get("requestBody", {}).get("content", {})
    return next((dict(content["schema"]) for content in contents.values()), None)


def problems(document: Json, schema: Json, value: Any) -> list[str]:
    """Where `value` does not fit the schema."""
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return [f"{'.'.join(map(str, error.instance_path))}: {error.message}" for error in validator.iter_errors(value)]


def fields(document: Json, schema: Json, prefix: str = "") -> Iterator[str]:
    """Dotted names of all fields that the schema describes, through arrays and alternatives."""
    schema = resolved(document, schema)
    for alternative in (*schema.get("anyOf", []), *schema.get("oneOf", []), *schema.get("allOf", [])):
        yield from fields(document, alternative, prefix)
    if "items" in schema:
        yield from fields(document, schema["items"], f"{prefix}[].")
    for name, inner in schema.get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from fields(document, inner, f"{prefix}{name}.")
