"""`python -m emissary.worker [POOL …]`: the warm worker as a process.

Multiprocessing has each forked process run the program that forks it anew, unless that is the `__main__` of a package.
"""

import asyncio
import sys

from emissary.worker import POOLS, serve

if __name__ == "__main__":
    asyncio.run(serve(tuple(sys.argv[1:]) or POOLS))
