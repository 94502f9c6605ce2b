"""The system calls that a testing function may not make: a seccomp filter for bubblewrap.

A function needs files, memory, threads and pipes. What it never needs is refused with EPERM: tracing and reading
other processes, namespaces and mounts, keys, BPF, performance events, kernel modules, clocks, memory that no limit
counts, writing out everybody's files, and new processes, for each of which the limits of memory and CPU time would
begin anew; threads share those of their process. Sockets are of the family AF_UNIX alone. Of the calls that Linux got
since 5.1 (from number 424 on, all architectures count alike) only harmless ones are let through, so that what a later
kernel brings is refused until it is listed.

Format: seccomp(2) and linux/filter.h; numbers: the kernel's syscall_64.tbl and asm-generic/unistd.h.
"""

import errno
import socket
import struct
from dataclasses import dataclass

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data, little endian
ALLOW, KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000

CLONE_THREAD = 0x00010000
# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_CLONE_NEW = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x20000000 | 0x40000000


@dataclass(frozen=True)
class _Machine:
    architecture: int  # AUDIT_ARCH_… of linux/audit.h
    column: int  # of the table below
    clone: int
    sockets: tuple[int, int]  # socket, socketpair


MACHINES = {
    "x86_64": _Machine(0xC000003E, 0, 56, (41, 53)),
    "aarch64": _Machine(0xC00000B7, 1, 220, (198, 199)),
}

# name: number on x86_64, on aarch64; None where the architecture has no such call.
DENIED: dict[str, tuple[int, int | None]] = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "fork": (57, None),
    "vfork": (58, None),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_by_handle_at": (304, 265),
    "name_to_handle_at": (303, 264),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "quotactl": (179, 60),
    "sync": (162, 81),
    "syncfs": (306, 267),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "lookup_dcookie": (212, 18),
    "syslog": (103, 116),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "create_module": (174, None),
    "get_kernel_syms": (177, None),
    "query_module": (178, None),
    "nfsservctl": (180, 42),
    "settimeofday": (164, 170),
    "adjtimex": (159, 171),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "personality": (135, 92),
    "uselib": (134, None),
    "modify_ldt": (154, None),
    "iopl": (172, None),
    "ioperm": (173, None),
    "_sysctl": (156, None),
    "vhangup": (153, 58),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "vmsplice": (278, 75),
    "io_setup": (206, 0),
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
}

FIRST_SHARED = 424
# pidfd_send_signal, close_range, openat2, faccessat2, epoll_pwait2, futex_waitv, cachestat, fchmodat2, futex_wake,
# futex_wait, futex_requeue
SHARED_ALLOWED = (424, 436, 437, 439, 441, 449, 451, 452, 454, 455, 456)


def program(machine: str) -> bytes:
    """The filter as an array of struct sock_filter, for `bwrap --seccomp`.

    `machine` is as `platform.machine()` has it. Raises RuntimeError for one whose system calls are not known here.
    """
    if machine not in MACHINES:
        raise RuntimeError(f"there is no seccomp filter for {machine}, only for {', '.join(MACHINES)}")
    known = MACHINES[machine]
    # As if the kernel did not have it: the C library then makes threads by clone, not by clone3, whose flags a filter
    # cannot see.
    refuse, as_unknown = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
    steps = [_step(_LOAD, _ARCHITECTURE), *_if_not(_JUMP_EQUAL, known.architecture, KILL), _step(_LOAD, _NUMBER)]
    for number in SHARED_ALLOWED:
        steps += _if(_JUMP_EQUAL, number, ALLOW)
    # This covers x86_64's other numbers too (x32, which begins at 2^30).
    steps += _if(_JUMP_AT_LEAST, FIRST_SHARED, as_unknown)
    for numbers in DENIED.values():
        if (denied := numbers[known.column]) is not None:
            steps += _if(_JUMP_EQUAL, denied, refuse)
    flags = [_step(_LOAD, _FIRST_ARGUMENT), *_if(_JUMP_ANY_BIT, _CLONE_NEW, refuse)]
    flags += [*_if_not(_JUMP_ANY_BIT, CLONE_THREAD, refuse), _step(_RETURN, ALLOW)]
    steps += [_step(_JUMP_EQUAL, known.clone, 0, len(flags)), *flags]
    for number in known.sockets:
        family = [_step(_LOAD, _FIRST_ARGUMENT), *_if(_JUMP_EQUAL, int(socket.AF_UNIX), ALLOW), _step(_RETURN, refuse)]
        steps += [_step(_JUMP_EQUAL, number, 0, len(family)), *family]
    return b"".join([*steps, _step(_RETURN, ALLOW)])


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """A struct sock_filter: operation, operand, and how many steps to skip by the outcome of a comparison."""
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _if(comparison: int, value: int, outcome: int) -> list[bytes]:
    return [_step(comparison, value, 0, 1), _step(_RETURN, outcome)]


def _if_not(comparison: int, value: int, outcome: int) -> list[bytes]:
    return [_step(comparison, value, 1, 0), _step(_RETURN, outcome)]
