"""`python -m emissary.tracking mlflow`: the process that tells a tracker, which `emissary up` keeps running."""

import asyncio
import logging
import signal
import sys

from emissary.tracking.reporter import Reporter, Tracker


def _tracker(name: str) -> Tracker:
    # Only the one that is asked for: the other may not be installed.
    if name == "mlflow":
        from emissary.tracking.to_mlflow import Mlflow

        return Mlflow()
    from emissary.tracking.to_wandb import Wandb

    return Wandb()


async def _report(name: str) -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await Reporter(name, _tracker(name)).run()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(_report(sys.argv[1]))
    except asyncio.CancelledError:
        logging.info("Asked to end")
