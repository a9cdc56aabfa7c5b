#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Change a domain of qemu-configs/ as its comment says that one does, and for where a test runs.

adapt.py [option]... FILE: the XML, on standard output.
"""

import argparse
import xml.etree.ElementTree as ET


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--emulated", action="store_true", help="QEMU's own emulation, which has no host's CPU")
    parser.add_argument("--memory", type=int, metavar="MIB")
    parser.add_argument("--cpus", type=int)
    parser.add_argument("--disk", metavar="RAW-FILE")
    parser.add_argument("--seed", metavar="RAW-FILE", help="the disk that is read only")
    parser.add_argument("--kernel")
    parser.add_argument("--initrd")
    parser.add_argument("--append", help="the kernel's arguments")
    parser.add_argument("--no-network", action="store_true", help="none; else one that needs no rights")
    parser.add_argument("--one-node", action="store_true", help="the host has one node, and CPU 0 and 1")
    parser.add_argument("--feature", action="append", default=[], metavar="POLICY=NAME")
    args = parser.parse_args()

    domain = ET.parse(args.file).getroot()
    cpu = domain.find("cpu")
    if args.emulated:
        domain.set("type", "qemu")
        cpu.set("mode", "maximum")
        cpu.remove(cpu.find("maxphysaddr"))
        domain.find("features").remove(domain.find("features/kvm"))
    for feature in args.feature:
        policy, name = feature.split("=")
        for old in cpu.findall(f"feature[@name='{name}']"):
            cpu.remove(old)
        new = ET.Element("feature", policy=policy, name=name)
        cpu.insert(len(cpu.findall("maxphysaddr")), new)
    if args.memory:
        cells = cpu.findall("numa/cell")
        for size, part in [(domain.find("memory"), 1)] + [(cell, len(cells)) for cell in cells]:
            size.set("unit", "MiB")
            if part == 1:
                size.text = str(args.memory)
            else:
                size.set("memory", str(args.memory // part))
    if args.cpus:
        domain.find("vcpu").text = str(args.cpus)
    for disk in domain.findall("devices/disk"):
        file = args.seed if disk.find("readonly") is not None else args.disk
        if file:
            disk.find("driver").set("type", "raw")
            disk.find("source").set("file", file)
        else:
            domain.find("devices").remove(disk)
    network = domain.find("devices/interface")
    if args.no_network:
        domain.find("devices").remove(network)
    else:
        network.set("type", "user")
        network.remove(network.find("source"))
    for name, value in (("kernel", args.kernel), ("initrd", args.initrd), ("cmdline", args.append)):
        if domain.find(f"os/{name}") is not None:
            domain.find(f"os/{name}").text = value
    if args.one_node:
        for node in domain.findall("numatune/*"):
            node.set("nodeset", "0")
        for number, pin in enumerate(domain.findall("cputune/*")):
            pin.set("cpuset", str(number % 2))
    print(ET.tostring(domain, encoding="unicode"))


if __name__ == "__main__":
    main()
