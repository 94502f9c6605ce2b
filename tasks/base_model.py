"""The base model's files on this machine."""

from functools import partial
from pathlib import Path

import anyio
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary import base_models, model_files
from emissary.hub_tokens import hub_token
from emissary.settings import settings
from emissary.store import datasets
from tasks.catalogue import in_catalogue
from tasks.patience import patiently


@task(task_run_name="base-model-{name}", cache_policy=NO_CACHE)
async def base_model_files(name: str) -> Path:
    """The folder of the base model `name`, fetched when it is not on this machine yet.

    Profiles of datasets that wait for a model whose tokenizer counts are made again after that.
    """
    log = get_run_logger()
    if (folder := model_files.local_folder(name, settings())) is not None:
        return folder
    log.info("Fetching the base model %s", name)
    folder = await anyio.to_thread.run_sync(
        partial(model_files.fetch, name, settings(), token=partial(patiently, hub_token))
    )
    await in_catalogue(datasets.profile_again, base_models.get(name).task_types)
    return folder
