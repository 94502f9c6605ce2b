"""Asking the Hugging Face hub about a base model before anything is made with it."""

from functools import partial

import anyio
import anyio.to_thread

from emissary import hub_models
from emissary.schemas.training_jobs import TrainingJobCreate
from emissary.settings import settings

_SECONDS = 6.0
# Threads of their own: name servers that do not answer hold up nobody else.
_THREADS = anyio.CapacityLimiter(4)


async def check_base_model(field: str, name: str) -> None:
    """Raises InvalidInput where the hub does not give us the model that `field` names; see `hub_models.check`."""
    with anyio.move_on_after(_SECONDS):
        check = partial(hub_models.check, name, field, settings())
        await anyio.to_thread.run_sync(check, abandon_on_cancel=True, limiter=_THREADS)


async def check_job(wanted: TrainingJobCreate) -> None:
    """The same of the base model that a new job names."""
    if wanted.base_model_option == "pre-trained":
        name = hub_models.named(wanted.base_model, wanted.hf_model_link)
        await check_base_model("base_model" if wanted.hf_model_link is None else "hf_model_link", name)
