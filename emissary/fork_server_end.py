"""Imported last by the fork server, so that it ends as soon as its worker has, and its runs with it.

Python would take seconds to take the libraries apart, in which a killed worker's runs would go on.
"""

import atexit
import os

atexit.register(os._exit, 0)
