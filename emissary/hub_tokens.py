"""The token with which the Hugging Face hub is read: the one that Prefect keeps, else that of this process."""

import asyncio

import httpx

from emissary.errors import Unavailable

BLOCK = "default"
"""The name of the block, of the type Hub Token."""
GIVE_ONE = "set HF_TOKEN or make the block hub-token/default in Prefect"
"""What to do where the hub does not let us read, as the end of a sentence."""
_SECONDS = 2.5


def hub_token() -> str | None:
    """The token in the block `hub-token/default`; where there is none, this process's own (HF_TOKEN, or the one that
    `hf auth login` has left); None without any.

    Blocks for a few seconds at most; not for an event loop's thread. Raises Unavailable where Prefect's server, which
    keeps the block, does not answer.
    """
    from huggingface_hub import get_token
    from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value() is None:  # on the command line
        return get_token()
    try:
        return asyncio.run(_of_block())
    except ObjectNotFound:
        return get_token()
    except (httpx.TransportError, PrefectHTTPStatusError, TimeoutError) as error:
        raise Unavailable(
            "Prefect's server, which keeps the token for the Hugging Face hub, does not answer; try again later."
        ) from error


async def _of_block() -> str:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
        async with asyncio.timeout(_SECONDS), get_client() as client:
            block = await client.read_block_document_by_name(BLOCK, "hub-token", include_secrets=True)
    return str(block.data["token"])
