"""What a hostile testing function tries. Each body returns a number where the attempt worked, and raises otherwise."""

import re
import textwrap
from dataclasses import dataclass

_CALLS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
def checked(result):
    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
def call(number, *arguments):
    return checked(libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
"""


@dataclass(frozen=True)
class Attempt:
    """One thing to try, and the error that stops it. `works_outside`: it does no harm, and works in a plain process,
    which shows that the sandbox is what stops it.
    """

    name: str
    body: str
    error: str
    works_outside: bool = False
    seconds: float = 20.0

    def source(self) -> str:
        """A testing function `attempt`, whose input is `target` as JSON."""
        body = textwrap.dedent(self.body).strip()
        # Imports take longer than most attempts.
        needed = [module for module in ("signal", "socket", "threading") if f"{module}." in body]
        helpers = _CALLS if re.search(r"libc|call\(|ctypes", body) else ""
        return (
            f"import {', '.join(['json', 'os', 'time', *needed])}\n{helpers}"
            "def attempt(input_text, expected_output, predicted_output):\n"
            f"    target = json.loads(input_text)\n{textwrap.indent(body, '    ')}\n"
        )

    def stopped_by(self, error: str) -> bool:
        """Whether `error` is what stops it."""
        return re.search(self.error, error) is not None


_ABSENT = "FileNotFoundError"
_REFUSED = "PermissionError|Operation not permitted"
_NO_CALL = "Function not implemented"
_CLOSED = "Read-only file system|FileNotFoundError|PermissionError"
_NOBODY = "ProcessLookupError|No such process"
_FORGED = "wrote to the sandbox's own pipe"

_EVERY_DESCRIPTOR = """
for descriptor in range(3, 256):
    try: os.write(descriptor, forged)
    except OSError: pass
"""


def _forge(reply: str) -> str:
    """Replies itself, for the row that it is called on where `reply` has the token."""
    token = "token = sys._getframe(1).f_locals['token'].encode()"
    return f"import sys\n{token}\nforged = {reply}{_EVERY_DESCRIPTOR}\ntime.sleep(60)"


ATTEMPTS = [
    # Secrets
    Attempt("read a secret in the environment", "return len(os.environ['ATTACKED_SECRET'])", "KeyError"),
    Attempt("read its own environment in /proc", "return len(open('/proc/self/environ').read())", _ABSENT),
    Attempt(
        "read the platform's environment in /proc",
        "return len(open(f'/proc/{target[\"pid\"]}/environ', 'rb').read())",
        _ABSENT,
        works_outside=True,
    ),
    Attempt(
        "read the platform's memory in /proc", "return len(open(f'/proc/{target[\"pid\"]}/mem', 'rb').name)", _ABSENT
    ),
    Attempt("list processes", "return len(os.listdir('/proc'))", _ABSENT, works_outside=True),
    Attempt(
        "find descriptors that were left open",
        """
        found, nowhere = [], os.stat('/dev/null')
        for descriptor in range(1024):
            try: found.append(os.fstat(descriptor))
            except OSError: pass
        if len([each for each in found if not os.path.samestat(each, nowhere)]) > 2: return 1
        raise LookupError('only its own pipes')
        """,
        "only its own pipes",
    ),
    Attempt(
        "find the first key by searching all folders",
        """
        for folder, below, files in os.walk('/'):
            if folder == '/': below.remove('usr')
            if 'api-key' in files: return 1
        raise LookupError('no key in any folder')
        """,
        "no key in any folder",
    ),
    # Files
    Attempt("read the first key", "return len(open(target['home'] + '/api-key').read())", _ABSENT, works_outside=True),
    Attempt(
        "read the artifact store",
        "return len(open(target['home'] + '/artifacts/adapter.safetensors').read())",
        _ABSENT,
        works_outside=True,
    ),
    Attempt("list the platform's source", "return len(os.listdir(target['repository']))", _ABSENT, works_outside=True),
    Attempt("read the users of the machine", "return len(open('/etc/passwd').read())", _ABSENT, works_outside=True),
    Attempt("read the password file", "return len(open('/etc/shadow').read())", _ABSENT),
    Attempt(
        "follow a symlink to the first key",
        "os.symlink(target['home'] + '/api-key', 'link')\nreturn len(open('link').read())",
        _ABSENT,
        works_outside=True,
    ),
    Attempt("link the first key", "os.link(target['home'] + '/api-key', '/tmp/link')\nreturn 1", _ABSENT),
    Attempt(
        "go up to the first key",
        "return len(open('../' * 20 + target['home'] + '/api-key').read())",
        _ABSENT,
        works_outside=True,
    ),
    Attempt("read a disk", "return len(os.listdir('/dev/disk')) + len(open('/dev/mem', 'rb').read(1))", _ABSENT),
    Attempt("make a device", "os.mknod('/tmp/disk', 0o60600, os.makedev(8, 0))\nreturn 1", _REFUSED),
    Attempt("open a file by its handle", "call(target['calls']['open_by_handle_at'], -100, 0, 0)\nreturn 1", _REFUSED),
    # Network and services
    Attempt("ask the metadata address", "socket.create_connection(('169.254.169.254', 80), 5)\nreturn 1", _REFUSED),
    Attempt(
        "connect to a service on loopback",
        "socket.create_connection(('127.0.0.1', target['port']), 5)\nreturn 1",
        _REFUSED,
        works_outside=True,
    ),
    Attempt(
        "connect to the database's socket",
        "socket.socket(socket.AF_UNIX).connect(target['database'])\nreturn 1",
        _ABSENT,
        works_outside=True,
    ),
    Attempt(
        "connect to an abstract socket",
        "socket.socket(socket.AF_UNIX).connect(chr(0) + target['abstract'])\nreturn 1",
        "ConnectionRefusedError",
        works_outside=True,
    ),
    Attempt(
        "send a datagram",
        "return socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', target['port']))",
        _REFUSED,
        works_outside=True,
    ),
    Attempt("look up a name", "return len(socket.getaddrinfo('example.org', 80))", "gaierror"),
    Attempt("listen on a port", "socket.create_server(('127.0.0.1', 0))\nreturn 1", _REFUSED, works_outside=True),
    Attempt("listen over IPv6", "socket.socket(socket.AF_INET6)\nreturn 1", _REFUSED),
    Attempt("write raw packets", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nreturn 1", _REFUSED),
    Attempt(
        "configure the network",
        "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\nreturn 1",
        _REFUSED,
        works_outside=True,
    ),
    Attempt("reach the hypervisor", "socket.socket(40, socket.SOCK_STREAM)\nreturn 1", _REFUSED),
    Attempt("use the kernel's ciphers", "socket.socket(38, socket.SOCK_SEQPACKET)\nreturn 1", _REFUSED),
    # Writing
    Attempt("write beside the root", "return open('/written', 'w').write('x')", _CLOSED),
    Attempt("write a library", "return open('/usr/lib/written.so', 'w').write('x')", _CLOSED),
    Attempt("change Python", "return open(os.__file__, 'a').write('\\nx = 1')", _CLOSED),
    Attempt("change the runner", "return open('/runner.py', 'a').write('x')", _CLOSED),
    Attempt("write to shared memory", "return open('/dev/shm/written', 'w').write('x')", _CLOSED),
    Attempt("write to the platform's folder", "return open(target['home'] + '/written', 'w').write('x')", _CLOSED),
    Attempt("mount the root again, writable", "checked(libc.mount(0, b'/', 0, 0x1020, 0))\nreturn 1", _REFUSED),
    Attempt(
        "fill the disk through /tmp",
        "for number in range(9): open(f'/tmp/{number}', 'wb').write(bytes(40 * 2**20))\nreturn 1",
        "No space left|File too large",
    ),
    Attempt(
        "fill /tmp with empty files",
        "for number in range(200_000): os.close(os.open(f'/tmp/{number}', os.O_CREAT))\nreturn 1",
        "ended its process",
        seconds=60,
    ),
    Attempt("make one huge file", "os.truncate(os.open('/tmp/x', 66), 2**40)\nreturn 1", "File too large"),
    # Memory
    Attempt("take more memory than there is", "return len(bytearray(6 * 2**30))", "MemoryError"),
    Attempt("map more memory than there is", "import mmap\nreturn len(mmap.mmap(-1, 6 * 2**30))", "Cannot allocate"),
    Attempt(
        "take memory in many threads",
        """
        import mmap
        kept, errors = [], []
        def take():
            try: kept.append(mmap.mmap(-1, 2**29))
            except OSError as error: errors.append(error)
        threads = [threading.Thread(target=take) for _ in range(12)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        if errors: raise errors[0]
        return 1
        """,
        "Cannot allocate",
    ),
    Attempt("keep memory in a file of its own", "os.memfd_create('x')\nreturn 1", _REFUSED, works_outside=True),
    Attempt("keep memory in System V's segments", "checked(libc.shmget(0, 4096, 0o1600))\nreturn 1", _REFUSED),
    Attempt(
        "raise its limit of memory",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))\nreturn 1",
        "not allowed to raise|exceeds maximum",
    ),
    # Processes
    Attempt("fork", "if os.fork() == 0: os._exit(0)\nos.wait()\nreturn 1", _REFUSED, works_outside=True),
    Attempt(
        "start a program",
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', ''], check=True)\nreturn 1",
        _REFUSED,
        works_outside=True,
    ),
    Attempt(
        "clone by a bare system call",
        "if call({'x86_64': 56, 'aarch64': 220}[target['machine']], 17, 0, 0, 0, 0) == 0: os._exit(0)\nreturn 1",
        _REFUSED,
    ),
    Attempt("clone by clone3", "call(435, 0, 0)\nreturn 1", _NO_CALL),
    Attempt(
        "start threads without end",
        """
        threading.stack_size(2**16)  # so that their memory is not what ends it
        for _ in range(1000): threading.Thread(target=time.sleep, args=(9,), daemon=True).start()
        return 1
        """,
        "can't start new thread",
    ),
    Attempt("signal the platform", "os.kill(target['pid'], 0)\nreturn 1", _NOBODY, works_outside=True),
    Attempt("kill all processes", "os.kill(-1, signal.SIGKILL)\nreturn 1", _NOBODY),
    Attempt(
        "kill the first process of the sandbox",
        "os.kill(1, signal.SIGKILL)\ntime.sleep(0.2)\nraise ProcessLookupError('it lives')",
        "it lives|PermissionError",
    ),
    Attempt(
        "survive the kill",
        """
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        os.setsid() if os.getsid(0) != os.getpid() else None
        threading.Thread(target=time.sleep, args=(600,)).start()
        while True:
            try: time.sleep(600)
            except BaseException: pass
        """,
        "did not score the row within 1 s",
        seconds=1,
    ),
    # Privileges and the kernel
    Attempt("become root", "os.setuid(0)\nreturn 1", f"{_REFUSED}|Invalid argument"),
    Attempt("make a user namespace", "checked(libc.unshare(0x10000000))\nreturn 1", _REFUSED),
    Attempt("enter a namespace", "checked(libc.setns(3, 0))\nreturn 1", _REFUSED),
    Attempt("change the root", "os.chroot('/tmp')\nreturn 1", _REFUSED),
    Attempt("trace", "checked(libc.ptrace(0, 0, 0, 0))\nreturn 1", _REFUSED, works_outside=True),
    Attempt(
        "read the memory of the first process",
        "call(target['calls']['process_vm_readv'], 1, 0, 0, 0, 0, 0)\nreturn 1",
        _REFUSED,
        works_outside=True,
    ),
    Attempt("take a descriptor of another process", "call(438, call(434, 1, 0), 0, 0)\nreturn 1", _NO_CALL),
    Attempt("read the session's keys", "call(target['calls']['keyctl'], 0, -3, 1)\nreturn 1", _REFUSED),
    Attempt("have all disks of the machine written out", "call(target['calls']['sync'])\nreturn 1", _REFUSED),
    Attempt("load a BPF program", "call(target['calls']['bpf'], 0, 0, 0)\nreturn 1", _REFUSED),
    Attempt("open a ring of io_uring", "call(425, 1, 0)\nreturn 1", _NO_CALL),
    Attempt("load a kernel module", "call(target['calls']['finit_module'], 3, 0, 0)\nreturn 1", _REFUSED),
    Attempt("turn off the layout's randomness", "call(target['calls']['personality'], 0x40000)\nreturn 1", _REFUSED),
    Attempt(
        "make any of the refused system calls",
        """
        for name, number in target['calls'].items():
            try: call(number, 0, 0, 0, 0, 0, 0)
            except PermissionError: continue
            except OSError as error: raise LookupError(f'{name} was made: {error}')
            return 1
        raise PermissionError('all refused')
        """,
        "all refused",
    ),
    Attempt(
        "call the kernel by another architecture's numbers",
        """
        if target['machine'] != 'x86_64': raise PermissionError('there is none')
        import mmap
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(b'\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3')  # mov eax, 20 (getpid); int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(code))
        return ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        """,
        "ended its process|there is none",
    ),
    Attempt("call the kernel by x32's numbers", "call(0x40000000 + 39)\nreturn 1", _NO_CALL),
    # Replies
    Attempt("reply with what is no number", _forge("""b'{"token": "%b", "score": NaN}\\n' % token"""), "no score"),
    Attempt("reply with infinity", _forge("""b'{"token": "%b", "score": 1e999}\\n' % token"""), "no score"),
    Attempt("reply for another row", _forge("""b'{"token": "%b", "score": 1.0}\\n' % token[::-1]"""), _FORGED),
    Attempt(
        "reply for the rows to come by their numbers",
        _forge("""b''.join(b'{"token": %d, "row": %d, "score": 1.0}\\n' % (row, row) for row in range(100))"""),
        _FORGED,
    ),
    Attempt("reply in endless brackets", _forge("b'[' * 60_000 + b'\\n'"), _FORGED),
    Attempt("reply without end", _forge("b'x' * 10**7"), _FORGED),
    Attempt(
        "reply with a pickle",
        "import pickle\n"
        "class Reply:\n    def __reduce__(self): return (open, (target['home'] + '/written', 'w'))\n"
        + _forge("pickle.dumps(Reply()) + b'\\n'"),
        _FORGED,
    ),
    Attempt(
        "return a score with side effects",
        """
        class Score(float):
            def __float__(self): os._exit(0)
            __repr__ = __format__ = __float__
        return Score(1)
        """,
        "a number, not Score",
    ),
    Attempt(
        "raise an error with side effects",
        """
        class Failure(Exception):
            def __str__(self): raise SystemExit('x')
        raise Failure()
        """,
        "Failure",
    ),
    Attempt("print megabytes", "for _ in range(99): print('x' * 10**5)\nreturn 1", "must not print more"),
]
