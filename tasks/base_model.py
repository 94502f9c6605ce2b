"""The base model's files on this machine."""

from functools import partial
from pathlib import Path

import anyio
from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from emissary import model_files
from emissary.hub_tokens import hub_token
from emissary.settings import settings
from tasks.patience import patiently


@task(task_run_name="base-model-{name}", cache_policy=NO_CACHE)
async def base_model_files(name: str) -> Path:
    """The folder of the base model `name`, fetched when it is not on this machine yet."""
    log = get_run_logger()
    if (folder := model_files.local_folder(name, settings())) is not None:
        return folder
    log.info("Fetching the base model %s", name)
    return await anyio.to_thread.run_sync(
        partial(model_files.fetch, name, settings(), token=partial(patiently, hub_token))
    )
