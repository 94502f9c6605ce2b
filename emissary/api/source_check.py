"""Asking a pipeline's source whether it is there, before the pipeline is made."""

from functools import partial

import anyio
import anyio.to_thread

from emissary.errors import Unavailable
from emissary.schemas.sources import DatasetsSource, Gather, TrafficSource
from emissary.sources import fetching
from emissary.store.database import transaction
from emissary.store.tables import Organization

_SECONDS = 15.0
# Threads of their own: servers that do not answer hold up nobody else.
_THREADS = anyio.CapacityLimiter(4)


async def check(gather: Gather, organization_id: str) -> None:
    """Raises InvalidInput where a run of the organization could not fetch from the source, Unavailable where that does
    not answer. Blocks nobody for longer than 15 s.
    """
    if isinstance(gather, DatasetsSource | TrafficSource):  # these are in the catalogue
        return
    async with transaction() as session:
        organization = (await session.get_one(Organization, organization_id)).name
    with anyio.move_on_after(_SECONDS) as scope:
        ask = partial(fetching.check, gather, organization)
        await anyio.to_thread.run_sync(ask, abandon_on_cancel=True, limiter=_THREADS)
    if scope.cancelled_caught:
        raise Unavailable(f"gather: the source did not answer within {_SECONDS:g} s; see that it runs, then try again.")
