# SPDX-License-Identifier: MIT
"""A model of cycles: instructions that were counted, and published figures for what takes longer than one.

Where what is published differs, what EPK has more of takes the most, and what its baselines have more of the least.
"""
import collections

Constant = collections.namedtuple("Constant", "cycles source")

CONSTANTS = {
    "instruction": Constant(1, "assumed, of user and kernel alike"),
    "wrpkru": Constant(28, "the most of 20 to 28 that are published; libmpk (USENIX ATC'19) has 23.3"),
    "vmfunc": Constant(199, "BULKHEAD (NDSS'25), Core i7-12700H; SkyBridge (EuroSys'19) has 134, Skylake"),
    "syscall": Constant(150, "the least of 150 to 300 that are published for a null system call; "
                             "430 to 470 with page-table isolation"),
    "exit": Constant(1950, "the least of 1,950 to 2,900 that are published for a null hypercall"),
}
LEFT_OUT = ("TLB misses and flushes, cache misses, page faults and interrupts of other CPUs are left out. Each `mprotect` or "
            "`pkey_mprotect` flushes; neither WRPKRU nor VMFUNC does.")


def cycles(figure):
    """Modelled cycles of a figure; what is counted as an event is not counted as an instruction as well."""
    if "count" not in figure or "wrpkru" not in figure:
        return None
    single = figure["wrpkru"] + figure["vmfunc"]
    return (max(0, figure["count"] - single) * CONSTANTS["instruction"].cycles
            + figure["wrpkru"] * CONSTANTS["wrpkru"].cycles
            + figure["vmfunc"] * CONSTANTS["vmfunc"].cycles
            + figure["syscalls"] * CONSTANTS["syscall"].cycles
            + figure["exits"] * CONSTANTS["exit"].cycles)


def percent_more(figure, base):
    """By how many per cent a figure's modelled cycles are more than its baseline's; None if there are none."""
    mine, theirs = cycles(figure), base and cycles(base)
    return 100 * (mine / theirs - 1) if mine and theirs else None
