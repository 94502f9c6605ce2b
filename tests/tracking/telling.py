"""A process that tells Weights & Biases a part of a job's life: telling.py FOLDER SERVER|offline FIRST LAST [kill].

With `kill` it is killed at its end, when it has had time to send something.
"""

import os
import signal
import sys
import time

from emissary.tracking.to_wandb import Wandb
from tests.tracking.jobs import MOMENTS

if __name__ == "__main__":
    folder, server, first, last, *kill = sys.argv[1:]
    where = {"WANDB_MODE": "offline"} if server == "offline" else {"WANDB_BASE_URL": server, "WANDB_API_KEY": "a" * 40}
    os.environ |= {"WANDB_DIR": folder, "WANDB__FILE_STREAM_TRANSMIT_INTERVAL": "1"} | where
    tracker = Wandb()
    for moment in MOMENTS[int(first) : int(last)]:
        tracker.tell(moment)
    if kill:
        time.sleep(3)
        os.kill(os.getpid(), signal.SIGKILL)
