"""The artifact store, and what else runs cannot do without, as they use it: where it is away they wait."""

import logging
import time
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from emissary.errors import Unavailable

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger(__name__)

_PATIENCE_SECONDS = 600.0
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 30.0


def patiently(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What `ask(*args, **kwargs)`, such as a method of the artifact store, returns; for another thread than the event
    loop's.

    Waits up to ten minutes for a store that is away, longer each time, and asks again; then raises Unavailable.
    """
    give_up = time.monotonic() + _PATIENCE_SECONDS
    wait = _FIRST_WAIT_SECONDS
    while True:
        try:
            return ask(*args, **kwargs)
        except Unavailable as error:
            if time.monotonic() > give_up:
                raise
            logger.warning("%s Trying again in %.1f s.", error, wait)
        time.sleep(wait)
        wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
