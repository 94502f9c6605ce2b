"""Pushing a checkpoint to the Hugging Face hub: its adapter, tokenizer and head as they are, and a model card."""

import json
import time
from pathlib import Path
from typing import Any

from emissary import base_models
from emissary.errors import EmissaryError, InvalidInput, Unavailable
from emissary.model_card import model_card
from emissary.schemas.hub_pushes import PushedToHub, PushToHub
from emissary.sources.connections import hub_connection
from emissary.store.artifacts import MANIFEST, artifact_store
from emissary.store.hub_pushes import Pushable

_CONFIG, _TASK = "adapter_config.json", "task.json"


def push(what: Pushable, wanted: PushToHub) -> PushedToHub:
    """Push the checkpoint, as one commit; without one where the repository has all of it as it is. Blocks.

    Raises InvalidInput where the organization may not push there (any more) or the hub refuses, Unavailable where it
    cannot be reached, and what the artifact store raises.
    """
    import httpx2
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    connection = hub_connection(wanted.repo, what.organization)
    content = _content(what, wanted.repo)
    token = connection.token.get_secret_value() if connection.token is not None else None
    hub = HfApi(token=token)
    try:
        page = hub.create_repo(wanted.repo, private=wanted.private, exist_ok=True)
        said = f"Checkpoint {what.checkpoint.number} of {what.job.id}"
        commit = hub.create_commit(wanted.repo, _operations(content), commit_message=said)
    except HfHubHTTPError as error:
        raise _refused(wanted.repo, error.response.status_code, error.server_message) from error
    except (OSError, httpx2.HTTPError) as error:
        raise Unavailable(
            f"push_to_hub: the Hugging Face hub cannot be reached ({type(error).__name__}); push again later."
        ) from error
    except (RuntimeError, ValueError) as error:  # what the client makes of a file that cannot be sent
        raise EmissaryError(f"push_to_hub: {wanted.repo} did not take the files: {error}", "push_failed") from error
    return PushedToHub(
        repo=wanted.repo, checkpoint=what.checkpoint.number, url=str(page), commit=commit.oid, at=int(time.time())
    )


def _content(what: Pushable, repo: str) -> dict[str, bytes | Path]:
    """The files of the repository: by name what is in it, or where it lies."""
    folder = artifact_store().folder(what.checkpoint.artifact)
    files: dict[str, bytes | Path] = {
        str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    files.pop(MANIFEST, None)
    config = json.loads((folder / _CONFIG).read_bytes())
    # PEFT loads the base model by this name, which is the catalogue's.
    config["base_model_name_or_path"] = base_models.get(what.job.base_model).hub_name or what.job.base_model
    files[_CONFIG] = json.dumps(config, indent=2, sort_keys=True).encode()
    task: dict[str, Any] | None = json.loads((folder / _TASK).read_bytes()) if _TASK in files else None
    card = model_card(what.job, what.checkpoint, what.last, repo, task)
    return files | {"README.md": card.encode()}


def _operations(content: dict[str, bytes | Path]) -> list[Any]:
    from huggingface_hub import CommitOperationAdd

    return [CommitOperationAdd(name, found) for name, found in content.items()]


def _refused(repo: str, status: int, said: str | None) -> EmissaryError:
    reason = f"{said or 'no reason given'} (status {status})"
    if status in (401, 403):
        return InvalidInput(
            f"push_to_hub.repo: the Hugging Face hub does not let this platform write to {repo}: {reason}. Have the "
            "operator give a token that may, in the file EMISSARY_SOURCES.",
            "push_refused",
        )
    if status == 429 or status >= 500:
        return Unavailable(f"push_to_hub: the Hugging Face hub cannot take {repo} now: {reason}. Push again later.")
    return InvalidInput(f"push_to_hub: the Hugging Face hub refuses {repo}: {reason}.", "push_refused")
