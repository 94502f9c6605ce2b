"""The API's own OpenAPI document; `python -m emissary.api.document > docs/openapi.json` renews the committed one."""

import json
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

_EXAMPLES = Path(__file__).with_name("examples.yaml")
_REFUSALS = {
    400: "What was asked for cannot be; the sentence names the field.",
    401: "There is no valid API key in the request.",
    403: "The key's role does not allow it.",
    404: "There is no such thing, or not for this caller.",
    409: "The Idempotency-Key came with another request before.",
    503: "It cannot be answered now and will work later.",
}
_ERROR = {
    "type": "object",
    "description": "What every refused or failed request is answered with.",
    "required": ["status", "error", "code"],
    "properties": {
        "status": {"type": "integer", "description": "The HTTP status."},
        "error": {"type": "string", "description": "A sentence: what is wrong, where, and what to do."},
        "code": {"type": "string", "description": "The kind of error, for programs."},
        "problems": {
            "type": "array",
            "description": "Of a dataset that is refused for some of its rows, the first hundred of these.",
            "items": {
                "type": "object",
                "required": ["line", "reason"],
                "properties": {"line": {"type": "integer"}, "reason": {"type": "string"}},
            },
        },
        "problem_count": {"type": "integer", "description": "How many rows these are in all."},
    },
    "examples": [{"status": 404, "error": "There is no project 'ms-12345'.", "code": "object_not_found"}],
}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Chosen by the client. For 24 hours the same key and request are answered with the first result.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_LINK = {"description": 'Address of the next page (`rel="next"`), RFC 8288.', "schema": {"type": "string"}}
_GENERATED = ("HTTPValidationError", "ValidationError")


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of `app`: FastAPI's, with our error envelope, headers and examples."""
    content = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    for path, item in content["paths"].items():
        for method, operation in item.items():
            _declare(method, path, operation)
    schemas = content["components"]["schemas"]
    for name in _GENERATED:
        schemas.pop(name, None)
    schemas["Error"] = _ERROR
    for name, example in yaml.safe_load(_EXAMPLES.read_text(encoding="utf-8")).items():
        if name in schemas:
            schemas[name]["examples"] = [example]
    return content


def _declare(method: str, path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    has_key, reads = bool(operation.get("security")), method == "get"
    refused = {
        400: True,
        401: has_key,
        403: has_key and not reads,
        404: "{" in path or "Inference" in operation.get("tags", []),
        409: "201" in responses,
        503: has_key and not reads,
    }
    for status in (status for status, occurs in refused.items() if occurs):
        body = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
        responses.setdefault(str(status), {"description": _REFUSALS[status], "content": body})
    parameters = operation.setdefault("parameters", [])
    if "201" in responses:
        parameters.append(_IDEMPOTENCY_KEY)
    if any(parameter["name"] == "after" for parameter in parameters):
        responses["200"]["headers"] = {"Link": _LINK}


def main() -> None:
    """Print the document of the application as it is."""
    from emissary.api.app import create_app

    print(json.dumps(create_app().openapi(), indent=2, ensure_ascii=False))  # noqa: T201 - what it is for


if __name__ == "__main__":
    main()
