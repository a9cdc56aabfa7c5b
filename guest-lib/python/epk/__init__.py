# SPDX-License-Identifier: MIT
"""Memory domains for Python: what libepk has, with objects that free and end.

    import epk

    secrets = epk.Domain()
    token = secrets.buffer(64)
    with secrets.hold():
        token.write(b"...")

A domain keeps its memory from all code of the process that does not hold it.  Python's own objects lie in ordinary
memory: what is read out of a buffer as bytes is a copy that no domain protects.  Buffer.read_from() and
Buffer.write_to() move data between files and a domain without one.

A hold is its thread's, and not a task's or a generator's.  Where a block that holds a domain awaits something, all that
the event loop runs meanwhile has the domain open; where one yields, so has the generator's caller, until it goes on:
await and yield outside.  A block that ends in another thread than it began in, as that of a generator may, is a
RuntimeError, and the domain stays held where it is.

Without EPK_BACKEND in the environment, and without init(), the library takes what the machine has.  See epk(7).
"""

from __future__ import annotations

import contextlib as _contextlib
import ctypes as _c
import errno as _errno
import os as _os
import sys as _sys
import threading as _threading
import weakref as _weakref
from types import TracebackType
from typing import Iterator

from ._library import Counts as _Counts, Options as _Options, lib as _lib

__all__ = ["Buffer", "Domain", "Error", "Held", "alloc", "backend", "counts", "domain_at", "held", "init", "version"]

_READ, _RW = 1, 3
# Who uses what is counted under it; what is collected meanwhile may count, too.
_counting = _threading.RLock()


def _forked() -> None:
    # A thread that the child has not may have had it.
    global _counting
    _counting = _threading.RLock()


_os.register_at_fork(after_in_child=_forked)


class Error(OSError):
    """A call of the library failed; errno says how, and strerror why, and what to do."""


def _check(err: int) -> int:
    if err < 0:
        raise Error(-err, _lib.epk_strerror(err).decode())
    return err


def _check_pointer(pointer: int | None) -> int:
    if not pointer or pointer == _c.c_void_p(-1).value:
        raise Error(_c.get_errno(), _lib.epk_strerror(-_c.get_errno()).decode())
    return pointer


def init(backend: str | None = None) -> None:
    """Choose a backend; optional.  Raises Error if the library is initialised already."""
    options = _Options(_c.sizeof(_Options), backend.encode() if backend is not None else None, 0, 0)
    _check(_lib.epk_init(_c.byref(options)))


def backend() -> str | None:
    """The backend in use; None while there is none."""
    name = _lib.epk_backend()
    return name.decode() if name else None


def version() -> tuple[int, int]:
    """The library's version."""
    number = _lib.epk_version()
    return number >> 16, number & 0xffff


def counts() -> dict[str, int]:
    """What the library counts for this process: epk_counts(3)."""
    now = _Counts(_c.sizeof(_Counts))
    _check(_lib.epk_counts(_c.byref(now)))
    return {name: getattr(now, name) for name, _ in _Counts._fields_ if name != "size"}


def held() -> dict[int, bool]:
    """The IDs of the domains that the thread holds, and whether to be written."""
    room = 128
    ids = (_c.c_int * room)()
    number = min(_check(_lib.epk_held(ids, room)), room)
    return {ids[i]: bool(_lib.epk_held_prot(ids[i]) & 2) for i in range(number)}


def domain_at(address: int) -> int:
    """The ID of the domain that an address belongs to, or 0."""
    return _check(_lib.epk_domain_at(address))


def alloc(number: int) -> list[Domain]:
    """Domains that are cheap to hold together; all or none."""
    if not 0 < number < 1 << 31:
        raise Error(_errno.EINVAL, "number is not positive, or too large")
    ids = (_c.c_int * number)()
    _check(_lib.alloc_domains(number, ids))
    return [Domain._of(id) for id in ids]


class Domain:
    """Memory that a thread reaches only while it holds it.

    A domain is freed by free(), at the end of its with block, or with its last reference.  One that is
    still held then stays as it is, closed to all who do not hold it.
    """

    _id: int = 0
    _owner: int = 0
    _users: int = 0

    def __init__(self, beside: Domain | None = None) -> None:
        number = (_c.c_int * 1)()
        if beside is None:
            _check(_lib.alloc_domains(1, number))
        else:
            _check(_lib.epk_alloc_beside(1, number, beside.id))
        self._take(number[0])

    @classmethod
    def everywhere(cls) -> Domain:
        """One that is cheap to hold together with any other; there can be few."""
        number = (_c.c_int * 1)()
        _check(_lib.epk_alloc_everywhere(1, number))
        return cls._of(number[0])

    @classmethod
    def _of(cls, number: int) -> Domain:
        domain = cls.__new__(cls)
        domain._take(number)
        return domain

    def _take(self, number: int) -> None:
        self._id, self._owner = number, _os.getpid()

    @property
    def id(self) -> int:
        """Its number, as in C; 0 once it is freed."""
        return self._id

    @property
    def place(self) -> tuple[int, int]:
        """The index of its EPT, -2 if it is in each, or -1, and its protection key, or 0, at this moment."""
        ept, pkey = _c.c_int(), _c.c_int()
        _check(_lib.epk_domain_place(self._id, _c.byref(ept), _c.byref(pkey)))
        return ept.value, pkey.value

    def hold(self, write: bool = True) -> Held:
        """For a with statement: the thread holds the domain in it, and then what it held before."""
        return Held(self, write)

    def buffer(self, size: int) -> Buffer:
        """Zeroed memory of the domain's heap; it lives as long as the domain, or until its free()."""
        return Buffer(self, size)

    def free(self) -> None:
        """Free it, and all of its memory; BufferError while something is at work on a buffer, or has a view of it."""
        with _counting:
            if self._users:
                raise BufferError(f"buffers of domain {self._id} are in use")
            _check(_lib.free_domains(1, (_c.c_int * 1)(self._id)))
            self._id = 0

    def __enter__(self) -> Domain:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        # A forked child that leaves the block has none of its parent's.
        if self._id and self._owner == _os.getpid():
            self.free()

    def __del__(self) -> None:
        # A forked child has none of its parent's.
        if self._id and self._owner == _os.getpid() and not _sys.is_finalizing():
            _lib.free_domains(1, (_c.c_int * 1)(self._id))

    def __reduce__(self) -> str:
        raise TypeError("a domain cannot be copied")

    def __repr__(self) -> str:
        return f"<epk.Domain {self._id}>"


class Held:
    """What Domain.hold() gives; it can be used again, but by one thread at a time."""

    def __init__(self, domain: Domain, write: bool = True) -> None:
        self.domain, self._prot = domain, _RW if write else _READ
        self._before: list[tuple[int, int, int]] = []

    def __enter__(self) -> Domain:
        number = self.domain.id
        before = _check(_lib.epk_held_prot(number))
        # First, or an interrupt between the two would leave it open.
        self._before.append((before, _os.getpid(), _threading.get_ident()))
        try:
            if before & self._prot != self._prot:
                _check(_lib.domain_begin(number, self._prot))
        except BaseException:
            self._end()
            raise
        return self.domain

    def _end(self) -> None:
        """Hold what was held before."""
        before, owner, thread = self._before[-1]
        number = self.domain.id
        if owner == _os.getpid() and thread != _threading.get_ident():
            raise RuntimeError(f"another thread holds domain {number} by this block, and has to end it")
        try:
            # A forked child that leaves the block holds nothing of its parent's.
            if owner == _os.getpid() and _lib.epk_held_prot(number) != before:
                _check(_lib.domain_end(number))
                if before:
                    _check(_lib.domain_begin(number, before))
        finally:
            self._before.pop()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._end()


class Buffer:
    """Bytes in a domain.  What touches them checks that the thread holds it: else it is Error, not a fault."""

    def __init__(self, domain: Domain, size: int) -> None:
        if not 0 < size <= _sys.maxsize:
            raise Error(_errno.EINVAL, "the size of a buffer is positive, and fits into memory")
        self._domain, self._size, self._users = domain, size, 0
        self._address = _check_pointer(_lib.epk_calloc(domain.id, 1, size))

    @property
    def domain(self) -> Domain:
        """The domain that it lies in."""
        return self._domain

    @property
    def address(self) -> int:
        """Where it lies: for ctypes, by which nothing is checked.  0 once it is freed."""
        return self._address

    def __len__(self) -> int:
        return self._size

    def _use(self, change: int) -> None:
        with _counting:
            self._users += change
            self._domain._users += change

    @_contextlib.contextmanager
    def _used(self, offset: int, size: int, prot: int) -> Iterator[int]:
        """Where the bytes are, which no other thread frees meanwhile."""
        self._use(1)
        try:
            yield self._range(offset, size, prot)
        finally:
            self._use(-1)

    def _array(self, at: int, size: int) -> _c.Array[_c.c_char]:
        """An array at an address, for as long as which the buffer lives."""
        array = (_c.c_char * size).from_address(at)
        array._buffer = self
        self._use(1)
        _weakref.finalize(array, self._use, -1)
        return array

    def _range(self, offset: int, size: int, prot: int) -> int:
        if not self._address or not self._domain.id:
            raise Error(_errno.ENOENT, "the buffer, or its domain, is freed")
        if offset < 0 or size < 0 or offset + size > self._size:
            raise IndexError(f"bytes {offset} to {offset + size} of a buffer of {self._size}")
        # In a forked child the domain is the parent's, and its memory is not there.
        has = _check(_lib.epk_held_prot(self._domain.id))
        if has & prot != prot:
            raise Error(_errno.EACCES, f"the thread holds domain {self._domain.id} to be read only" if has else
                        f"the thread does not hold domain {self._domain.id}: with domain.hold():")
        return self._address + offset

    def read(self, offset: int = 0, size: int | None = None) -> bytes:
        """A copy of some of the bytes: in ordinary memory."""
        size = self._size - offset if size is None else size
        with self._used(offset, size, _READ) as at:
            return _c.string_at(at, size)

    def write(self, data: bytes | bytearray | memoryview, offset: int = 0) -> int:
        """Copy data there; how many bytes that were."""
        with memoryview(data).cast("B") as view:
            size = len(view)
            with self._used(offset, size, _RW) as at:
                # No second copy of it, where that can be.
                if isinstance(data, bytes):
                    _c.memmove(at, data, size)
                elif view.readonly or not size:
                    _c.memmove(at, view.tobytes(), size)
                else:
                    _c.memmove(at, (_c.c_char * size).from_buffer(view), size)
        return size

    def view(self, write: bool = True) -> memoryview:
        """The bytes themselves, for who holds the domain: an access of who does not is a fault.

        As long as there is one, neither buffer nor domain can be freed."""
        at = self._range(0, self._size, _RW if write else _READ)
        view = memoryview(self._array(at, self._size)).cast("B")
        return view if write else view.toreadonly()

    def read_from(self, fd: int, offset: int = 0, size: int | None = None) -> int:
        """Have the kernel read from a file straight into it; how many bytes."""
        size = self._size - offset if size is None else size
        with self._used(offset, size, _RW) as at:
            return _os.readv(fd, [(_c.c_char * size).from_address(at)])

    def write_to(self, fd: int, offset: int = 0, size: int | None = None) -> int:
        """Have the kernel write from it to a file; how many bytes."""
        size = self._size - offset if size is None else size
        with self._used(offset, size, _READ) as at:
            return _os.writev(fd, [(_c.c_char * size).from_address(at)])

    def wipe(self) -> None:
        """Fill it with zeroes."""
        with self._used(0, self._size, _RW) as at:
            _c.memset(at, 0, self._size)

    def free(self) -> None:
        """Give it back to the domain's heap; what it held stays there until it is used again: see wipe().

        BufferError while something is at work on it, or has a view."""
        with _counting:
            if self._users:
                raise BufferError("the buffer is in use")
            _check(_lib.epk_free(self._domain.id, self._address))
            self._address = 0

    def __getitem__(self, index: int | slice) -> int | bytes:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._size)
            if step != 1:
                raise ValueError("a buffer has slices of step 1 only")
            return self.read(start, max(stop - start, 0))
        index += self._size if index < 0 else 0
        return self.read(index, 1)[0]

    def __setitem__(self, index: int | slice, value: int | bytes | bytearray | memoryview) -> None:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._size)
            if isinstance(value, int):
                raise TypeError("a slice of a buffer is set to bytes")
            if step != 1 or memoryview(value).nbytes != max(stop - start, 0):
                raise ValueError("a buffer does not change its size, and has slices of step 1 only")
            self.write(value, start)
            return
        if not isinstance(value, int):
            raise TypeError("a byte of a buffer is set to a number")
        index += self._size if index < 0 else 0
        self.write(bytes([value]), index)

    def __iter__(self) -> Iterator[int]:
        return iter(self.read())

    def __reduce__(self) -> str:
        raise TypeError("a buffer cannot be copied")

    def __repr__(self) -> str:
        return f"<epk.Buffer of {self._size} bytes in domain {self._domain.id}>"
