# SPDX-License-Identifier: MIT
"""Which tests a run has, if nothing or something is named."""

from flavours import DEBIAN_FLAVOURS
from testlist import is_named

# What runs if nothing is named, on Debian's kernel as the host
# (kvm-dirty wants the log that is off there, kvm-notifier a RAM disk) ...
STOCK_HOST_TESTS = ("selfcheck", "modules", "kvm-hypercall", "kvm-vmfunc", "kvm-owed", "kvm-fault",
                    "kvm-memslot", "kvm-destroy", "kvm-reset", "kvm-smm", "kvm-cap",
                    "kvm-state", "kvm-memory", "kvm-device", "kvm-nvmx", "kvm-emulator", "kvm-race",
                    "hypercall", "kmod-args", "kmod-switch", "kmod-move", "kmod-attack",
                    "lib-matrix")
# ... of Linux 6.12, whose KVM has another series ...
HOST_612_TESTS = ("selfcheck", "fuzz", "kvm", "hypercall", "kmod-args", "kmod-switch", "kmod-move", "kmod-attack", "lib-matrix")
# ... and as the guest; those that need the wide guest do, too.
DEBIAN_TESTS = ("selfcheck", "kmod-args", "kmod-process", "kmod-switch", "kmod-move",
                "kmod-signal", "kmod-frame", "kmod-rights", "kmod-pkru", "kmod-futex", "kmod-perf",
                "kmod-attack", "kmod-deputy", "kmod-life", "kmod-huge", "kmod-walkers",
                "kmod-return", "kmod-stack", "kmod-file-memfd",
                "lib-matrix", "unit-rights-epk", "unit-mapping-epk")
# The cloud flavour is the stock one with other options.
CLOUD_TESTS = ("selfcheck", "kmod-args", "kmod-process", "kmod-switch", "kmod-move", "kmod-signal", "kmod-futex",
               "kmod-attack", "kmod-deputy", "kmod-life", "kmod-walkers", "lib-matrix", "unit-rights-epk")
# In QEMU alone, not on Debian's kernels: minutes of single steps through the library, of which another kernel changes
# nothing, of backends that are compared, of heaps in a thousand files and of TLS sessions.
NOT_DEBIAN_ALONE = ("unit-overwrite", "unit-step", "unit-component-step", "unit-component-confined-step",
                    "unit-component-attack", "unit-alike", "unit-many", "example-store", "persist-steps", "tls")
# Not on a host of Linux 6.12 unless it is named: the lists are of 6.1's selftests.
NOT_612 = ("selftests-core",)
# On this machine's KVM, not the tests of the testbed itself; the tool's is for the emulated host's files.
HERE_TESTS = ("kvm", "hypercall", "kmod", "lib", "unit", "example", "bench")
HERE_NOT = ("kvm-tool",)


def choose(tests, args, guest):
    """The tests that are named; else all that suit the kernels."""
    debian = guest in DEBIAN_FLAVOURS
    of_guest = CLOUD_TESTS if guest == "cloud" else DEBIAN_TESTS if debian else ()
    of_host = {"stock": STOCK_HOST_TESTS, "6.12": HOST_612_TESTS}
    core = of_host.get(args.kernel, of_guest)
    names = args.names or (core if not args.alone else ())
    chosen = [test for test in tests if test.name in names or "named" not in test.needs and
              (not names or any(is_named(test, name) for name in names))]
    # Nobody asked for these; what is named fails without its kernel.
    unasked = {need for flavour, need in (("debug", "debug"), ("stock", "stock-host"))
               if args.kernel != flavour}
    unasked.add("fast" if guest == "debug" else "guest-debug")
    if guest == "stock":
        chosen += [test for test in tests if "wide" in test.needs and not args.names]
    else:
        unasked.add("wide")
    if args.kernel == "6.12":
        chosen = [test for test in chosen if test.name in args.names or test.name not in NOT_612]
    if args.alone and debian and not args.names:
        chosen = [test for test in chosen if not any(is_named(test, name) for name in NOT_DEBIAN_ALONE)]
    if args.fast:
        chosen = [test for test in chosen if test.name in args.names or is_fast(test)]
    return [test for test in chosen if test.name in args.names or not unasked & test.needs]


def is_fast(test):
    """Whether make check-fast has it, which is to take five minutes."""
    return "slow" not in test.needs if test.level == "native" else "core" in test.needs
