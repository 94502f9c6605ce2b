"""Models of the Hugging Face hub outside the catalogue: the link that names one, and whether it can be used."""

import re

from emissary import base_models, model_files
from emissary.base_models import HubSource
from emissary.errors import InvalidInput, Unavailable
from emissary.hub_tokens import GIVE_ONE, hub_token
from emissary.settings import Settings

HF_MODEL = "HF_MODEL"
"""The `base_model` of a request that names its model by `hf_model_link`."""

ANSWER_SECONDS = 3.0
"""How long the hub may take for one of the two answers that a check needs."""

_SITE = "https://huggingface.co/"
_OTHER_PAGES = ("api", "blog", "collections", "datasets", "docs", "models", "organizations", "papers", "spaces")


def repository(link: str) -> str:
    """The repository `owner/name` that `link` names: its page on huggingface.co, or itself. Raises InvalidInput."""
    name = link.removeprefix(_SITE).removesuffix("/")
    if ":" not in name and re.search("@|/(tree|blob|resolve|commit)/", name):
        raise _misfit(link, "a revision cannot be chosen, it is always the newest")
    owner = name.split("/", maxsplit=1)[0]
    if owner in _OTHER_PAGES or name in base_models.catalogue() or base_models.find(name) is None:
        raise _misfit(link, "it is not the page of a model")
    return name


def named(base_model: str, hf_model_link: str | None) -> str:
    """The base model that a request names: by `base_model`, or with HF_MODEL by the link. Raises InvalidInput."""
    if base_model == HF_MODEL:
        if hf_model_link is None:
            raise InvalidInput(f"hf_model_link: {HF_MODEL} needs it; give {_SITE}owner/name, or owner/name.")
        return repository(hf_model_link)
    if hf_model_link is not None:
        raise InvalidInput(f"hf_model_link: it goes with base_model {HF_MODEL} only, not with {base_model!r}.")
    return base_model


def check(name: str, field: str, settings: Settings) -> None:
    """Raise InvalidInput, naming `field`, where the base model `name` is one of the hub's that cannot be had: there is
    no such repository, or not for this platform's token, or it has no safetensors.

    Asks the hub only for a model outside the catalogue that is not on this machine; says nothing where the hub, or
    Prefect, which keeps the token, cannot be reached. Blocks for a few seconds at most.
    """
    entry = base_models.find(name)
    if entry is None or name in base_models.catalogue() or model_files.local_folder(name, settings) is not None:
        return
    assert isinstance(entry.source, HubSource)
    import httpx2
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RepositoryNotFoundError

    repo = entry.source.repo
    try:
        token = hub_token()
        # The page of a gated model is open to all, its files are not.
        get_hf_file_metadata(hf_hub_url(repo, "config.json"), token=token, timeout=ANSWER_SECONDS)
        files = [file.rfilename for file in HfApi(token=token).model_info(repo, timeout=ANSWER_SECONDS).siblings or []]
    except GatedRepoError as error:
        raise _unusable(field, repo, f"it is gated; accept its licence on its page and {GIVE_ONE}") from error
    except RepositoryNotFoundError as error:
        raise _unusable(field, repo, "there is no such model, or this platform's token does not open it") from error
    except RemoteEntryNotFoundError as error:
        raise _unusable(field, repo, "it has no config.json") from error
    except (OSError, httpx2.HTTPError, Unavailable):
        return
    if not any(file.endswith(".safetensors") for file in files):
        raise _unusable(field, repo, "it has no safetensors, the only format that is loaded")


def _misfit(link: str, why: str) -> InvalidInput:
    shown = link[:100] + ("…" if len(link) > 100 else "")
    return InvalidInput(f"hf_model_link: {shown!r} cannot be used: {why}; give {_SITE}owner/name, or owner/name.")


def _unusable(field: str, repo: str, why: str) -> InvalidInput:
    return InvalidInput(f"{field}: the Hugging Face model {repo} cannot be used: {why}.", code="base_model_unknown")
