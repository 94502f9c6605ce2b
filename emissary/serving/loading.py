"""What is said of a base model whose files cannot be loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from emissary import base_models
from emissary.errors import InvalidInput

_REASON_CHARACTERS = 300


@contextmanager
def refused(model_dir: Path, what: str) -> Iterator[None]:
    """Has whatever is raised while files of `model_dir` are loaded come as InvalidInput, a sentence that names the
    model: it holds no `what`, or needs code of its own.
    """
    try:
        yield
    except InvalidInput:
        raise
    except Exception as error:  # of anybody's files, transformers raises anything
        # What transformers advises then, to trust that code, cannot be followed here.
        if "trust_remote_code" in str(error):
            raise InvalidInput(
                f"The model {model_name(model_dir)} needs code of its own, which is never run here; use another base "
                "model."
            ) from error
        said = " ".join(str(error).replace(str(model_dir), model_name(model_dir)).split())
        reason = said if len(said) <= _REASON_CHARACTERS else f"{said[:_REASON_CHARACTERS]}…"
        raise InvalidInput(f"The model {model_name(model_dir)} holds no {what}: {reason}") from error


def model_name(model_dir: Path) -> str:
    """The name of the base model in `model_dir`, which ends in it."""
    name = model_dir.name
    return name if name in base_models.catalogue() else f"{model_dir.parent.name}/{name}"
