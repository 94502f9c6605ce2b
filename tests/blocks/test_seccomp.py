"""The filter's decisions on both architectures, by interpreting it as the kernel does."""

import errno
import struct

import pytest

from blocks.seccomp import ALLOW, DENIED, KILL, MACHINES, program

EPERM, ENOSYS = 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
SIGCHLD = 17
# clone, socket, socketpair, read
CALLS = {"x86_64": (56, 41, 53, 0), "aarch64": (220, 198, 199, 63)}


def decision(machine: str, number: int, argument: int = 0, architecture: int | None = None) -> int:
    architecture = MACHINES[machine].architecture if architecture is None else architecture
    data = struct.pack("<IIQ6Q", number, architecture, 0, argument, 0, 0, 0, 0, 0)
    steps, at, loaded = list(struct.iter_unpack("<HBBI", program(machine))), 0, 0
    while True:
        code, if_true, if_false, value = steps[at]
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            loaded = struct.unpack_from("<I", data, value)[0]
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value, 0x45: bool(loaded & value)}[code]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_what_no_function_needs_is_refused(machine: str) -> None:
    column = MACHINES[machine].column
    assert {name for name, numbers in DENIED.items() if numbers[column] is None} <= {
        *("fork", "vfork", "create_module", "get_kernel_syms", "query_module"),
        *("uselib", "modify_ldt", "iopl", "ioperm", "_sysctl"),
    }
    for name, numbers in DENIED.items():
        if (number := numbers[column]) is not None:
            assert decision(machine, number) == EPERM, name
    # pidfd_open, clone3, io_uring's three, and what there is not yet
    for number in (425, 426, 427, 434, 435, 470, 2**20, 2**30 + 59):
        assert decision(machine, number) == ENOSYS, number


@pytest.mark.parametrize("machine", MACHINES)
def test_threads_and_local_sockets_are_let_through_and_no_more(machine: str) -> None:
    clone, connecting, pair, read = CALLS[machine]
    thread = 0x3D0F00  # what pthread_create asks for
    assert decision(machine, clone, thread) == ALLOW
    assert decision(machine, clone, SIGCHLD) == EPERM
    for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert decision(machine, clone, thread | namespace) == EPERM
    for call in (connecting, pair):
        assert [decision(machine, call, family) for family in (1, 2, 10, 16, 17, 38, 40)] == [ALLOW] + [EPERM] * 6
    assert decision(machine, read) == decision(machine, 436) == ALLOW


@pytest.mark.parametrize("machine", MACHINES)
def test_other_architectures_end_the_process(machine: str) -> None:
    for other in (0x40000003, 0x40000028, 0xC00000F3, 0):  # i386, arm, riscv64
        assert decision(machine, 20, architecture=other) == KILL


def test_a_machine_without_a_filter_is_refused() -> None:
    with pytest.raises(RuntimeError, match="no seccomp filter for riscv64, only for x86_64, aarch64"):
        program("riscv64")
