"""Notification blocks of Prefect (Slack, Teams, mail and others): who may use which, and sending by them.

Blocks belong to nobody, so the operator names the organizations that may use one, in the file EMISSARY_NOTIFICATIONS:

    {"slack-webhook/ops": {"organizations": ["default"]}, "mail/everybody": {"organizations": "all"}}

The file is read each time, so a change counts at once.
"""

import asyncio
import inspect
import logging

import prefect.blocks.notifications  # noqa: F401
from prefect.blocks.abstract import NotificationBlock, NotificationError
from prefect.blocks.core import Block
from pydantic import TypeAdapter

import blocks.mail  # noqa: F401 - Prefect finds the block's class once it is imported
from emissary import operator_files
from emissary.api.prefect_client import PREFECT_AWAY, prefect_client
from emissary.errors import EmissaryError, InvalidInput, Unavailable
from emissary.operator_files import Leave
from emissary.settings import settings

logger = logging.getLogger(__name__)

_SECONDS = 30.0
_FILE: TypeAdapter[dict[str, Leave]] = TypeAdapter(dict[str, Leave])


async def load(name: str, organization: str) -> NotificationBlock:
    """The block `type/name`, which the organization may use.

    Raises InvalidInput where it may not, or there is none that notifies; Unavailable; OperatorFileUnusable.
    """
    path = settings().notifications
    known = {} if path is None else operator_files.read("EMISSARY_NOTIFICATIONS", path, _FILE)
    if name not in known or not known[name].is_for(organization):
        raise InvalidInput(
            f"block: this organization has no notification block {name!r}; name another one, or have the operator add "
            "it to the file EMISSARY_NOTIFICATIONS."
        )
    try:
        async with prefect_client() as client:
            block = await Block.aload(name, client=client)
    except PREFECT_AWAY as error:
        raise Unavailable(f"block: Prefect cannot be asked for {name!r} now; try again soon.") from error
    except Exception as error:
        # Its words may name what is in the block.
        logger.warning("The block %s cannot be loaded: %s", name, error)
        raise InvalidInput(
            f"block: Prefect has no block {name!r} that can be loaded; make it on the page Blocks of its UI."
        ) from error
    if not isinstance(block, NotificationBlock):
        raise InvalidInput(f"block: {name!r} is no notification block; name one for Slack, Teams, mail or the like.")
    return block


async def send(name: str, organization: str, subject: str, body: str) -> None:
    """Have the block send this. Raises EmissaryError where it cannot, as `load`, or because of the receiver."""
    block = await load(name, organization)
    try:
        async with asyncio.timeout(_SECONDS):
            with block.raise_on_failure():
                sent = block.notify(body, subject)
                if inspect.isawaitable(sent):
                    await sent
    except Exception as error:
        # What a block says may name hosts and tokens.
        said = error.log if isinstance(error, NotificationError) else error
        logger.warning("The block %s could not send: %s", name, said or type(error).__name__)
        raise EmissaryError(f"The block {name} could not send it; the API's log says why.") from error
