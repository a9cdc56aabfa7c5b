#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bind.py LIBRARY: another language uses the library, by its symbols alone.

Each inline of epk.h has real symbols behind it: EPK_WITH() is epk_scope_enter() and
epk_scope_leave(), and what the compiler makes of domain_begin() has names too.
"""

import ctypes
import errno
import os
import sys

PROT_READ, PROT_WRITE = 1, 2
RW = PROT_READ | PROT_WRITE

epk = ctypes.CDLL(sys.argv[1], use_errno=True)
for name in ("domain_mmap", "epk_malloc"):
    getattr(epk, name).restype = ctypes.c_void_p
epk.domain_mmap.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int,
                            ctypes.c_int)
epk.epk_malloc.argtypes = (ctypes.c_int, ctypes.c_size_t)
epk.epk_free.argtypes = (ctypes.c_int, ctypes.c_void_p)
epk.epk_domain_at.argtypes = (ctypes.c_void_p,)
epk.epk_strerror.restype = epk.epk_backend.restype = ctypes.c_char_p


class Options(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("backend", ctypes.c_char_p),
                ("flags", ctypes.c_uint), ("reserved", ctypes.c_uint)]


class Domain:
    """Held for the statements in a with, as EPK_WITH() does in C."""

    def __init__(self, prot=RW):
        number = (ctypes.c_int * 1)()
        must(epk.alloc_domains(1, number))
        self.number, self.prot = number[0], prot

    def __enter__(self):
        must(epk.domain_begin(self.number, self.prot))
        return self

    def __exit__(self, *_):
        must(epk.domain_end(self.number))

    def free(self):
        must(epk.free_domains(1, (ctypes.c_int * 1)(self.number)))


def must(err):
    if err:
        raise OSError(-err, epk.epk_strerror(err).decode())


def main():
    backend = os.environ.get("EPK_BACKEND", "none").encode()
    options = Options(ctypes.sizeof(Options), backend, 0, 0)
    must(epk.epk_init(ctypes.byref(options)))
    assert epk.epk_backend() == backend
    assert epk.epk_version() >> 16 == 1

    domain = Domain()
    memory = epk.domain_mmap(domain.number, None, 8192, RW, 0)
    assert memory and memory != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
    assert epk.epk_domain_at(memory + 5000) == domain.number
    with domain:
        assert ctypes.string_at(memory, 8) == bytes(8)
        ctypes.memmove(memory, b"secret", 6)
        assert epk.epk_held_prot(domain.number) == RW
        assert epk.domain_begin(domain.number, RW) == -errno.EALREADY
    must(epk.epk_begin_read(domain.number))
    assert ctypes.string_at(memory, 6) == b"secret"
    must(epk.domain_end(domain.number))
    must(epk.epk_begin_write(domain.number))
    must(epk.domain_end(domain.number))

    small = epk.epk_malloc(domain.number, 100)
    assert small
    must(epk.epk_free(domain.number, small))

    function = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_void_p)(lambda argument: 41 + argument)
    result = ctypes.c_long()
    if backend == b"none":
        # Elsewhere the interpreter's own data would have to lie in the domain.
        must(epk.epk_call(domain.number, function, ctypes.c_void_p(1), ctypes.byref(result)))
        assert result.value == 42
    domain.free()
    assert epk.domain_begin(domain.number, RW) == -errno.ENOENT
    assert b"freed" in epk.epk_strerror(-errno.ENOENT)
    assert epk.domain_mmap(domain.number, None, 4096, RW, 0) == ctypes.c_void_p(-1).value
    assert ctypes.get_errno() == errno.ENOENT


if __name__ == "__main__":
    main()
