"""pip without other programs: what is no wheel cannot be built, so no code of a package runs, whatever asks for it.

`--only-binary` alone does not do that: pip builds what a wheel names by its address, and what it takes for a file.
"""

import runpy
import sys

_STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.exec", "os.system"}
"""Events of Python (https://docs.python.org/3/library/audit_events.html) by which a program is started."""


def _refuse(event: str, _arguments: object) -> None:
    if event in _STARTS:
        raise PermissionError("a package has no wheel and would have to be built")


if __name__ == "__main__":
    sys.addaudithook(_refuse)
    runpy.run_module("pip", run_name="__main__", alter_sys=True)
