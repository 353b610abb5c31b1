"""Runs a Python tool for which time stands still, every file is as old as any other, and all randomness is the same: `python still.py MODULE ARGS…` (Linux).

componentize-py keeps the memory of an interpreter that has just been started, and in it what that interpreter saw: the clock, random bytes, and of files their
times, inode numbers and order. So each build differs from the one before (bytecodealliance/componentize-py issue 247). Here the tool's system calls that tell
such things are answered by this process (seccomp_unotify(2)): a file's kind, size and rights as they are, everything else always the same, folders in order.
The clock is no system call but code that the kernel maps into each process (vdso(7)); it is overwritten there. No privilege is needed.

Exits as the tool does, and with 125 where the kernel does not allow it.
"""

import ctypes
import errno
import fcntl
import hashlib
import os
import platform
import select
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

NOT_ALLOWED = 125
EPOCH_S = 1_577_836_800  # 2020-01-01, UTC
RANDOM = b"\x5a"
HEAD, ANSWER = struct.Struct("<QIIiIQ6Q"), struct.Struct("<QqiI")
RECEIVE, SEND = 0xC0502100, 0xC0182101
AT_FDCWD, AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH = -100, 0x100, 0x1000
NO_NEW_PRIVILEGES, SET_FILTER, LISTEN = 38, 1, 1 << 3
ALLOW, NOTIFY, FAIL = 0x7FFF0000, 0x7FC00000, 0x00050000
DROPPABLE = 8  # a mapping by which newer C libraries make random numbers without asking
# The numbers of system calls, and the machine's name for the filter (linux/audit.h).
NUMBERS = {
    "x86_64": (0xC000003E, {
        "seccomp": 317, "mmap": 9, "fstat": 5, "fstatat": 262, "statx": 332, "getdents64": 217, "getrandom": 318, "clock_gettime": 228,
        "time": 201,
    }),
    "aarch64": (0xC00000B7, {
        "seccomp": 277, "mmap": 222, "fstat": 80, "fstatat": 79, "statx": 291, "getdents64": 61, "getrandom": 278, "clock_gettime": 113,
    }),
}  # fmt: skip
ANSWERED = ("fstat", "fstatat", "statx", "getdents64", "getrandom", "clock_gettime", "time")
CLOCKS = ("clock_gettime", "time")
LOOKED_FOR_CLOCKS = 1_000  # calls after which no new program is expected

_S, _W = struct.pack("<I", EPOCH_S), [EPOCH_S & 0xFFFF, EPOCH_S >> 16]
_NOW = struct.pack("<II", 0xD2800002 | _W[0] << 5, 0xF2A00002 | _W[1] << 5)  # aarch64: x2 is the time
# Machine code of clocks that have stopped: they store the time where they are told to, and return 0; `time` returns the time.
TELLING = {
    "x86_64": {
        "clock_gettime": b"\x48\xc7\x06" + _S + b"\x48\xc7\x46\x08" + bytes(4) + b"\x31\xc0\xc3",
        "time": b"\x48\x85\xff\x74\x07\x48\xc7\x07" + _S + b"\xb8" + _S + b"\xc3",
    },
    "aarch64": {
        "clock_gettime": _NOW + struct.pack("<III", 0xA9007C22, 0x52800000, 0xD65F03C0),
    },
}

libc = ctypes.CDLL(None, use_errno=True)


def listen(arch: int, numbers: dict[str, int]) -> int:
    """Puts the filter on this process and what it becomes; returns what the answers go through. Raises OSError."""
    rules: list[tuple[int, int, int, int]] = [(0x20, 0, 0, 4), (0x15, 1, 0, arch), (0x06, 0, 0, ALLOW), (0x20, 0, 0, 0)]
    rules += [rule for name in ANSWERED if name in numbers for rule in ((0x15, 0, 1, numbers[name]), (0x06, 0, 0, NOTIFY))]
    rules += [(0x15, 0, 4, numbers["mmap"]), (0x20, 0, 0, 40), (0x54, 0, 0, 15), (0x15, 0, 1, DROPPABLE), (0x06, 0, 0, FAIL | errno.ENOMEM)]
    rules += [(0x06, 0, 0, ALLOW)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *rule) for rule in rules))
    program = ctypes.create_string_buffer(struct.pack("<H6xQ", len(rules), ctypes.addressof(code)))
    if libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    found = libc.syscall(numbers["seccomp"], SET_FILTER, LISTEN, program)
    if found < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return int(found)


class Answers:
    """Answers the calls of the tool's threads."""

    def __init__(self, machine: str, numbers: dict[str, int]) -> None:
        self._machine = machine
        self._numbers, self._stilled, self._calls = numbers, set[int](), 0
        self._folders: dict[tuple[int, int], list[bytes]] = {}
        self._by_number: dict[int, Callable[..., int]] = {numbers[name]: getattr(self, f"_{name}") for name in ANSWERED if name in numbers}

    def answer(self, thread: int, number: int, args: tuple[int, ...]) -> int:
        """What the call returns: a number, or minus an errno."""
        self._calls += 1
        try:
            if self._calls < LOOKED_FOR_CLOCKS:
                self._still_clocks(thread)
            return self._by_number[number](thread, *args)
        except OSError as error:
            return -(error.errno or errno.EIO)

    def _fstat(self, thread: int, descriptor: int, out: int, *_: int) -> int:
        return self._write(thread, out, self._plain(*_looked(thread, descriptor, b"", AT_EMPTY_PATH)))

    def _fstatat(self, thread: int, folder: int, path: int, out: int, flags: int, *_: int) -> int:
        return self._write(thread, out, self._plain(*_looked(thread, folder, _text(thread, path), flags)))

    def _statx(self, thread: int, folder: int, path: int, flags: int, _mask: int, out: int, *_: int) -> int:
        found, inode = _looked(thread, folder, _text(thread, path) if path else b"", flags if path else flags | AT_EMPTY_PATH)
        head = struct.pack("<IIQIIIHxxQQQQ", 0x7FF, 4096, 0, 1, found.st_uid, found.st_gid, found.st_mode, inode, _size(found), 8, 0)
        times = struct.pack("<qIi", EPOCH_S, 0, 0) * 4
        return self._write(thread, out, (head + times + struct.pack("<IIII", 0, 0, 0, 1)).ljust(256, b"\0"))

    def _getrandom(self, thread: int, out: int, size: int, *_: int) -> int:
        self._write(thread, out, RANDOM * size)
        return size

    def _clock_gettime(self, thread: int, _clock: int, out: int, *_: int) -> int:
        return self._write(thread, out, struct.pack("<qq", EPOCH_S, 0))

    def _time(self, thread: int, out: int, *_: int) -> int:
        if out:
            self._write(thread, out, struct.pack("<q", EPOCH_S))
        return EPOCH_S

    def _still_clocks(self, thread: int) -> None:
        """Stops the clocks of the thread's program: each returns the same time at once."""
        start, end = next(_mapped(thread, "[vdso]"), (0, 0))
        if not start or start in self._stilled:
            return
        self._stilled.add(start)
        with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
            memory.seek(start)
            image = memory.read(end - start)
        for name, at, size in _functions(image):
            call = name.removeprefix("__vdso_").removeprefix("__kernel_")
            if call in CLOCKS and call in self._numbers:
                telling = TELLING[self._machine][call]
                # A function too short for that asks the kernel, and so this process.
                self._write(thread, start + at, telling if len(telling) <= size else _asking(self._machine, self._numbers[call]))

    def _getdents64(self, thread: int, descriptor: int, out: int, room: int, *_: int) -> int:
        name = f"/proc/{thread}/fd/{descriptor & 0xFFFFFFFF}"
        with open(f"/proc/{thread}/status") as file:
            process = int(next(line.split()[1] for line in file if line.startswith("Tgid:")))
        with open(f"/proc/{thread}/fdinfo/{descriptor & 0xFFFFFFFF}") as file:
            fresh = int(file.readline().split()[1]) == 0
        key = process, descriptor
        if fresh and key not in self._folders:
            self._folders[key] = _entries(os.fsencode(name))
        waiting, batch = self._folders[key], b""
        while waiting and len(batch) + len(waiting[0]) <= room:
            batch += waiting.pop(0)
        if not batch:
            del self._folders[key]
        self._write(thread, out, batch)
        return len(batch)

    def _plain(self, found: os.stat_result, inode: int) -> bytes:
        times = struct.pack("<qq", EPOCH_S, 0) * 3
        if self._machine == "x86_64":
            head = struct.pack(
                "<QQQIIIIQqqq", 1, inode, 1, found.st_mode, found.st_uid, found.st_gid, 0, found.st_rdev, _size(found), 4096, 8
            )
            return (head + times).ljust(144, b"\0")
        head = struct.pack(
            "<QQIIIIQQqiiq", 1, inode, found.st_mode, 1, found.st_uid, found.st_gid, found.st_rdev, 0, _size(found), 4096, 0, 8
        )
        return (head + times).ljust(128, b"\0")

    def _write(self, thread: int, at: int, data: bytes) -> int:
        with open(f"/proc/{thread}/mem", "wb", buffering=0) as memory:
            memory.seek(at)
            memory.write(data)
        return 0


def _looked(thread: int, folder: int, path: bytes, flags: int) -> tuple[os.stat_result, int]:
    """A file's state, and a number that tells it from others in every build: from its name and size."""
    folder &= 0xFFFFFFFF
    if not path and not flags & AT_EMPTY_PATH:
        raise OSError(errno.ENOENT, "no path")
    here = Path(f"/proc/{thread}/cwd" if folder == AT_FDCWD & 0xFFFFFFFF else f"/proc/{thread}/fd/{folder}")
    named = here / os.fsdecode(path)
    found = named.stat(follow_symlinks=not path or not flags & AT_SYMLINK_NOFOLLOW)
    last = named.name if path else Path(os.readlink(here)).name  # a pipe's name is no path
    return found, _inode(os.fsencode(last), found.st_mode, _size(found))


def _inode(name: bytes, mode: int, size: int) -> int:
    name = b"" if name.startswith(b".tmp") else name
    return int.from_bytes(hashlib.sha256(b"%s %d %d" % (name, stat.S_IFMT(mode), size)).digest()[:7], "little") | 1


def _size(found: os.stat_result) -> int:
    # What a folder has for a size depends on the file system.
    return 4096 if stat.S_ISDIR(found.st_mode) else found.st_size


def _entries(folder: bytes) -> list[bytes]:
    kinds = {stat.S_IFDIR: 4, stat.S_IFREG: 8, stat.S_IFLNK: 10}
    names = [(b".", stat.S_IFDIR), (b"..", stat.S_IFDIR)]
    with os.scandir(folder) as found:
        names += sorted((entry.name, stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)) for entry in found)
    made = []
    for number, (name, kind) in enumerate(names):
        length = (19 + len(name) + 1 + 7) // 8 * 8
        made.append((struct.pack("<QqHB", _inode(name, kind, 0), number + 1, length, kinds.get(kind, 0)) + name).ljust(length, b"\0"))
    return made


def _mapped(thread: int, what: str) -> Iterator[tuple[int, int]]:
    with open(f"/proc/{thread}/maps") as file:
        for line in file:
            if line.rstrip().endswith(what):
                start, _, end = line.split(" ")[0].partition("-")
                yield int(start, 16), int(end, 16)


def _functions(image: bytes) -> Iterator[tuple[str, int, int]]:
    """Names, offsets and sizes of what a shared object exports (ELF, 64 bits)."""
    table, count = struct.unpack_from("<Q", image, 40)[0], struct.unpack_from("<H", image, 60)[0]
    sections = [struct.unpack_from("<IIQQQQIIQQ", image, table + 64 * number) for number in range(count)]
    for _, kind, _, _, at, span, link, _, _, _ in sections:
        if kind != 11:  # SHT_DYNSYM
            continue
        names = sections[link][4]
        for symbol in range(at, at + span, 24):
            name, _, _, _, value, length = struct.unpack_from("<IBBHQQ", image, symbol)
            yield image[names + name : image.index(b"\0", names + name)].decode("ascii", "replace"), value, length


def _asking(machine: str, number: int) -> bytes:
    """Machine code of a function that makes one system call with its arguments."""
    if machine == "x86_64":
        return b"\xb8" + struct.pack("<I", number) + b"\x0f\x05\xc3"
    return struct.pack("<III", 0xD2800008 | number << 5, 0xD4000001, 0xD65F03C0)


def _text(thread: int, at: int) -> bytes:
    """The path at an address; read up to the end of its page first, since the next may not be there."""
    with open(f"/proc/{thread}/mem", "rb", buffering=0) as memory:
        found = b""
        while b"\0" not in found:
            memory.seek(at + len(found))
            found += memory.read(4096 - (at + len(found)) % 4096)
    return found.partition(b"\0")[0]


def supervise(listener: int, child: int, answers: Answers) -> int:
    """Answers until the child has ended; its exit code."""
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(ended, select.POLLIN)
    while True:
        for descriptor, event in poll.poll():
            if descriptor == ended:
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if event & select.POLLIN:
                _one(listener, answers)
            else:
                poll.unregister(listener)


def _one(listener: int, answers: Answers) -> None:
    request = bytearray(HEAD.size)
    try:
        fcntl.ioctl(listener, RECEIVE, request)
    except OSError:
        return  # it was killed meanwhile
    number_of_it, thread, _, number, _, _, *args = HEAD.unpack(request)
    value = answers.answer(thread, number, tuple(args))
    reply = ANSWER.pack(number_of_it, max(value, 0), min(value, 0), 0)
    try:
        fcntl.ioctl(listener, SEND, bytearray(reply))
    except OSError:
        return


def main(module: str, *args: str) -> int:
    arch, numbers = NUMBERS.get(platform.machine(), (0, {}))
    if not numbers or sys.platform != "linux":
        return NOT_ALLOWED
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        try:
            socket.send_fds(theirs, [b"!"], [listen(arch, numbers)])
        except OSError:
            os._exit(NOT_ALLOWED)
        os.execv(sys.executable, [sys.executable, "-P", "-c", f"import sys, {module}; sys.exit({module}.script())", *args])
    theirs.close()
    _, descriptors, _, _ = socket.recv_fds(ours, 1, 1)
    if not descriptors:
        os.waitpid(child, 0)
        return NOT_ALLOWED
    return supervise(descriptors[0], child, Answers(platform.machine(), numbers))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
