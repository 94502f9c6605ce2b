"""JSON by a schema: the answer is JSON as the JSON Schema in the expected output describes it."""

import json
from typing import Any

from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable


def json_schema_shared(input_text: str, expected_output: str, predicted_output: str) -> float:  # noqa: ARG001 - the contract
    """1.0 where the whole answer is one JSON value that is valid by the schema, else 0.0.

    The schema is of the draft that its `$schema` names, else of 2020-12 (https://json-schema.org); a `$ref` leads
    within it only. `{"const": …}` demands that very value, whatever its spaces and the order of its keys. Raises
    ValueError where the expected output is no JSON Schema.
    """
    try:
        schema = json.loads(expected_output)
        if not isinstance(schema, dict | bool):
            raise ValueError("a schema is an object, true or false")
        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
    except (SchemaError, ValueError, RecursionError) as error:
        reason = error.message if isinstance(error, SchemaError) else error
        raise ValueError(f"the expected output is no JSON Schema: {reason}; correct the row") from None
    try:
        answer = json.loads(predicted_output, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    try:
        # A registry of its own: without one, references to addresses would be fetched.
        return float(kind(schema, registry=Registry()).is_valid(answer))
    except RecursionError:
        if isinstance(answer, dict | list) and not _recurs(kind, schema):
            return 0.0  # the answer is too deep
        raise ValueError(
            "the schema in the expected output leads back to itself without end; correct the row"
        ) from None
    except Unresolvable as error:
        raise ValueError(f"the schema in the expected output is not whole: {error}; correct the row") from None


def _recurs(kind: Any, schema: Any) -> bool:
    """Whether the schema leads back to itself whatever the answer is."""
    try:
        kind(schema, registry=Registry()).is_valid(None)
    except RecursionError:
        return True
    return False


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")  # NaN and infinities, which Python takes for it
