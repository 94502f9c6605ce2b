"""JSON files in which the operator names what organizations may use."""

import json
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from emissary.errors import EmissaryError

T = TypeVar("T")


class OperatorFileUnusable(EmissaryError):
    """The operator's file is not as it must be."""

    code = "operator_file_unusable"


class Leave(BaseModel):
    """Something that some organizations may use."""

    model_config = ConfigDict(extra="forbid")
    organizations: list[str] | Literal["all"]
    """Their names."""

    def is_for(self, organization: str) -> bool:
        """Whether the organization of that name may."""
        return self.organizations == "all" or organization in self.organizations


def read(variable: str, path: Path, kind: TypeAdapter[T]) -> T:
    """What is in the file that the setting `variable` names, now. Raises OperatorFileUnusable."""
    try:
        return kind.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        # Without what was found there, which may be a secret.
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise OperatorFileUnusable(f"{variable}, {where}: {first['msg']}; correct it in {path}.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise OperatorFileUnusable(f"{variable}: {path} cannot be read ({reason}); correct it.") from None
