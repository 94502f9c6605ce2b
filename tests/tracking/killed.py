"""A process that tells Weights & Biases the beginning of a job's life, and is killed: killed.py FOLDER."""

import os
import signal
import sys

from emissary.tracking.to_wandb import Wandb
from tests.tracking.jobs import MOMENTS

if __name__ == "__main__":
    os.environ |= {"WANDB_MODE": "offline", "WANDB_DIR": sys.argv[1]}
    tracker = Wandb()
    for moment in MOMENTS[:3]:
        tracker.tell(moment)
    os.kill(os.getpid(), signal.SIGKILL)
