"""Our own OpenAPI document: fresh, valid, and a superset of the contract."""

import json
from typing import Any

import pytest

from emissary.api.app import create_app
from emissary.settings import PROJECT_ROOT
from tests.contract.contract import (
    contract,
    fields,
    operations,
    problems,
    request_schema,
    resolved,
    response_schema,
)

DOCUMENT: dict[str, Any] = create_app().openapi()
OURS = operations(DOCUMENT)
THEIRS = operations(contract())
# The contract writes a map of names to weights as an object with two example names.
EXAMPLE_NAMES = ("reward.test_function_1", "reward.test_function_2")


def test_committed_document_is_that_of_the_application() -> None:
    committed = json.loads((PROJECT_ROOT / "docs/openapi.json").read_text(encoding="utf-8"))
    assert committed == DOCUMENT, "renew it: python -m emissary.api.document > docs/openapi.json"


@pytest.mark.parametrize("operation_id", THEIRS)
def test_operation_of_the_contract_is_documented_with_all_it_has(operation_id: str) -> None:
    theirs, ours = THEIRS[operation_id], OURS[operation_id]
    assert (ours.method, ours.path) == (theirs.method, theirs.path)
    assert theirs.codes <= ours.codes
    wanted, given = request_schema(contract(), theirs), request_schema(DOCUMENT, ours)
    if wanted:
        assert given
        lacking = set(fields(contract(), wanted)) - set(fields(DOCUMENT, given))
        assert not {name for name in lacking if not name.endswith(EXAMPLE_NAMES)}
        required = resolved(DOCUMENT, given).get("required", [])
        assert set(required) <= set(resolved(contract(), wanted).get("required", []))
    for code in theirs.codes:
        wanted, given = response_schema(contract(), theirs, code), response_schema(DOCUMENT, ours, code)
        if wanted:
            assert given
            lacking = set(fields(contract(), wanted)) - set(fields(DOCUMENT, given))
            assert not {name for name in lacking if not name.endswith(EXAMPLE_NAMES)}
    query = {parameter["name"] for parameter in theirs.definition.get("parameters", []) if "name" in parameter}
    assert query <= {parameter["name"] for parameter in ours.definition["parameters"]}


@pytest.mark.parametrize("operation_id", OURS)
def test_every_refusal_is_declared_with_the_envelope(operation_id: str) -> None:
    operation = OURS[operation_id]
    assert 422 not in operation.codes
    assert 400 in operation.codes
    needs_key = bool(operation.definition.get("security"))
    assert (401 in operation.codes) == (needs_key or operation_id == "receiveWebhook")  # it is signed instead
    for code in operation.codes:
        if code >= 400 and operation.path != "/healthz":
            assert response_schema(DOCUMENT, operation, code) == {"$ref": "#/components/schemas/Error"}


def test_every_example_fits_its_schema() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    examples = {name: schema["examples"] for name, schema in schemas.items() if "examples" in schema}
    assert len(examples) > 20
    for name, values in examples.items():
        for value in values:
            assert not problems(DOCUMENT, {"$ref": f"#/components/schemas/{name}"}, value), name


@pytest.mark.parametrize("operation_id", OURS)
def test_every_json_body_has_an_example(operation_id: str) -> None:
    operation = OURS[operation_id]
    codes = [code for code in operation.codes if code < 300]
    schemas = [response_schema(DOCUMENT, operation, code) for code in codes]
    if "application/json" in operation.definition.get("requestBody", {}).get("content", {}):
        schemas.append(request_schema(DOCUMENT, operation))
    for schema in schemas:
        if schema and schema.get("title", "") != "Response Healthz":
            assert any(_has_example(one) for one in (schema, *schema.get("anyOf", []))), schema


def _has_example(schema: dict[str, Any]) -> bool:
    schema = resolved(DOCUMENT, schema.get("items", schema))
    return "examples" in schema
