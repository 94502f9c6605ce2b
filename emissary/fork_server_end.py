"""Imported last by the fork server, so that its runs start without delay, and end with it as soon as its worker has."""

import atexit
import gc
import os
import signal

import emissary.fork_starter  # noqa: F401 - has the function that each run begins with

# Else each run's first collections look through all the libraries' objects, and copy their memory by doing so.
gc.freeze()
# Python would take seconds to take the libraries apart, in which a killed worker's runs would go on.
atexit.register(os._exit, 0)
# Where all processes of a service are told to end, the runs still have to save: it ends when its worker has.
signal.signal(signal.SIGTERM, signal.SIG_IGN)
