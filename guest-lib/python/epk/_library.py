# SPDX-License-Identifier: MIT
"""The symbols of libepk.so.1 that the package uses, with their types, as epk.h has them."""

import ctypes as c


class Options(c.Structure):
    """struct epk_options"""

    _fields_ = [("size", c.c_size_t), ("backend", c.c_char_p), ("flags", c.c_uint), ("reserved", c.c_uint)]


class Counts(c.Structure):
    """struct epk_counts"""

    _fields_ = [("size", c.c_size_t)] + [(name, c.c_uint64) for name in (
        "domains", "epts", "pages", "ept_switches", "vm_domains", "vm_epts", "vm_pages", "vm_exits", "vm_faults")]


_IDS = c.POINTER(c.c_int)
_CALLS = {
    "alloc_domains": (c.c_int, c.c_int, _IDS),
    "free_domains": (c.c_int, c.c_int, _IDS),
    "domain_begin": (c.c_int, c.c_int, c.c_int),
    "domain_end": (c.c_int, c.c_int),
    "epk_alloc_beside": (c.c_int, c.c_int, _IDS, c.c_int),
    "epk_alloc_everywhere": (c.c_int, c.c_int, _IDS),
    "epk_backend": (c.c_char_p,),
    "epk_calloc": (c.c_void_p, c.c_int, c.c_size_t, c.c_size_t),
    "epk_counts": (c.c_int, c.POINTER(Counts)),
    "epk_domain_at": (c.c_int, c.c_void_p),
    "epk_domain_place": (c.c_int, c.c_int, _IDS, _IDS),
    "epk_free": (c.c_int, c.c_int, c.c_void_p),
    "epk_held": (c.c_int, _IDS, c.c_int),
    "epk_held_prot": (c.c_int, c.c_int),
    "epk_init": (c.c_int, c.POINTER(Options)),
    "epk_strerror": (c.c_char_p, c.c_int),
    "epk_version": (c.c_uint,),
}


def _load() -> c.CDLL:
    # PyDLL: a call of the library is short, and holding a domain is the thread's: no other runs in between.
    library = c.PyDLL("libepk.so.1", use_errno=True)
    for name, (result, *arguments) in _CALLS.items():
        call = getattr(library, name)
        call.restype, call.argtypes = result, arguments
    return library


lib = _load()
