#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""epk_host.py EPK-HOST: the host's tool on made-up machines, see epk-host(8)."""

import json
import os
import pathlib
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import unittest

TOP = pathlib.Path(__file__).resolve().parents[2]
NOBODY = 65534
INTEL, AMD, HYPERV = "GenuineIntel", "AuthenticAMD", "Microsoft Hv"
LOCKED, VMX_ON = 1, 4
SECUREBOOT = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
FACTS = ["cpu", "VT-x", "EPT", "VMFUNC", "keys", "address bits", "nested", "kernel", "Secure Boot", "modules",
         "parameter epk", "TDP MMU", "/dev/kvm", "KVM_CAP_EPK", "QEMU", "qemu-img", "libvirt", "firmware"]


def words(text, order):
    a, b, c = struct.unpack("<III", text.encode())
    return {order[0]: a, order[1]: b, order[2]: c}


class Made(unittest.TestCase):
    """A host that lacks nothing; each test takes something away."""

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="epk-host-"))
        self.addCleanup(shutil.rmtree, self.root)
        # Others look in, too.
        self.root.chmod(0o755)
        self.bin = self.root / "bin"
        self.path = f"{self.bin}"
        self.leaves = {0: dict(eax=28, **words(INTEL, ("ebx", "edx", "ecx"))), 1: dict(ecx=1 << 5),
                       7: dict(ecx=3 << 3), 0x80000008: dict(eax=46)}
        self.msrs = {0x3a: LOCKED | VMX_ON, 0x48b: (1 << 33) | (1 << 45), 0x48c: 1 << 6 | 1 << 14 | 1 << 26, 0x491: 1}
        self.flags, self.vmx = "fpu vmx pku ospke", "ept eptp_switching"
        self.parameters = {"kvm_intel": {"epk": "any", "ept": "Y"}, "kvm": {"epk_debug": "N", "tdp_mmu": "Y"}}
        self.kvm = "api 12\nepts 512\n"
        self.release = "6.1.0-41-amd64"
        self.program("qemu-system-x86_64", "echo 'QEMU emulator version 7.2.19 (Debian 1:7.2)'; echo more")
        self.program("qemu-img", "echo 'qemu-img version 7.2.19'")
        self.program("virsh", "echo 9.0.0")
        self.write("usr/share/OVMF/OVMF_CODE_4M.fd", "firmware")
        self.socket = socket.socket(socket.AF_UNIX)
        self.addCleanup(self.socket.close)
        (self.root / "run/libvirt").mkdir(parents=True)
        self.socket.bind(f"{self.root}/run/libvirt/libvirt-sock")
        self.socket.listen(4096)

    def write(self, path, content):
        path = self.root / path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def program(self, name, script):
        self.write(f"bin/{name}", f"#!/bin/sh\n{script}\n").chmod(0o755)

    def leaf(self, number, **registers):
        self.leaves[number] = registers

    def make(self):
        """Whatever is None is not there."""
        order = ("eax", "ebx", "ecx", "edx")
        self.write("dev/cpu/0/cpuid", "".join(
            f"{number:08x} 0 " + " ".join(f"{leaf.get(name, 0):x}" for name in order) + "\n"
            for number, leaf in self.leaves.items()))
        if self.msrs is not None:
            for cpu in (0, 1):
                self.write(f"dev/cpu/{cpu}/msr", "".join(f"{n:x} {v:x}\n" for n, v in self.msrs.items()))
        vmx = f"vmx flags\t: {self.vmx}\n" if self.vmx is not None else ""
        self.write("proc/cpuinfo", f"processor\t: 0\nmodel name\t: Made Up\nflags of old\t: vmx\nflags\t\t: {self.flags}\n{vmx}\n"
                                   "processor\t: 1\nmodel name\t: Another\n")
        self.write("proc/sys/kernel/osrelease", self.release + "\n")
        for module, values in self.parameters.items():
            (self.root / "sys/module" / module).mkdir(parents=True, exist_ok=True)
            for name, value in values.items():
                self.write(f"sys/module/{module}/parameters/{name}", value + "\n")
        if self.kvm is not None:
            self.write("dev/kvm", self.kvm)

    def run_tool(self, *args, user=None, **options):
        # A tool that a root's folder keeps from others is run from a copy.
        tool = TOOL
        if user:
            tool = self.root / "epk-host"
            shutil.copy(TOOL, tool)
        done = subprocess.run([tool, "--root", self.root, *args], stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=60, env={"PATH": self.path}, user=user, group=user,
                              extra_groups=[] if user else None, **options)
        return done.returncode, done.stdout.decode("ascii"), done.stderr.decode("ascii")

    def check(self, **expected):
        """The facts, by their names; @expected are states of those that are not "ok"."""
        self.make()
        rc, text, _ = self.run_tool("check")
        json_rc, out, _ = self.run_tool("check", "--json")
        self.told = json.loads(out)
        facts = {fact["fact"]: fact for fact in self.told["facts"]}
        # Bytes that are no text are all one in JSON.
        lines = [re.escape(f"{fact['state']:8} {fact['fact']:14} {fact['value']}") for fact in facts.values()]
        lines = [re.sub(r"(\\?[^ -~])+", r"(\\\\x[0-9a-f]{2})+", line) for line in lines]
        for line, pattern in zip([line for line in text.splitlines() if not line.startswith(" ")], lines, strict=True):
            self.assertRegex(line, f"^{pattern}$")
        self.assertEqual([name for name in FACTS if name not in facts], [])
        states = {name: fact["state"] for name, fact in facts.items() if fact["state"] != "ok"}
        expected = {name.replace("_", " ") if name != "KVM_CAP_EPK" else name: state for name, state in expected.items()}
        expected = {{"VT x": "VT-x", "qemu img": "qemu-img", "dev kvm": "/dev/kvm", "epk debug": "epk_debug"}.get(name, name): state
                    for name, state in expected.items()}
        self.assertEqual(states, expected)
        self.assertTrue(all("advice" in fact for fact in facts.values() if fact["state"] != "ok"))
        missing = "missing" in states.values()
        self.assertEqual((rc, json_rc, self.told["works"]), (missing, missing, not missing))
        self.assertEqual(self.told["epts"] > 0, not missing)
        return {name: fact["value"] + " -> " + fact.get("advice", "") for name, fact in facts.items()}


class Check(Made):
    def test_all_is_there(self):
        facts = self.check()
        self.assertIn("Made Up", facts["cpu"])
        self.assertIn("46: half of that space takes 512 EPTs of 64 GiB", facts["address bits"])
        self.assertEqual((self.told["epts"], self.told["address_bits"]), (512, 46))

    def test_address_bits(self):
        for bits, epts, gib in (39, 256, 1), (40, 512, 1), (48, 512, 256), (52, 512, 256), (36, 32, 1):
            self.leaf(0x80000008, eax=0x3000 + bits)
            less = {"address_bits": "less"} if epts < 512 else {}
            facts = self.check(**less)
            self.assertEqual("512 want 40 bits" in facts["address bits"], epts < 512)
            self.assertIn(f"{bits}: half of that space takes {epts} EPTs of {gib} GiB", facts["address bits"])
            self.assertEqual((self.told["epts"], self.told["address_bits"]), (epts, bits))
        self.leaf(0x80000008, eax=30)
        self.check(address_bits="missing")

    def test_kvm_offers_fewer(self):
        self.kvm = "api 12\nepts 64\n"
        self.check()
        self.assertEqual(self.told["epts"], 64)

    def test_amd(self):
        self.leaves[0] = dict(eax=16, **words(AMD, ("ebx", "edx", "ecx")))
        self.leaf(1, ecx=0)
        self.flags, self.vmx, self.msrs, self.kvm = "fpu svm", None, None, "api 12\nepts 0\n"
        self.parameters = {"kvm_amd": {}, "kvm": {"tdp_mmu": "Y"}}
        facts = self.check(cpu="missing", VT_x="missing", EPT="missing", VMFUNC="missing", modules="missing",
                           parameter_epk="missing", KVM_CAP_EPK="missing")
        self.assertIn("no VMFUNC", facts["cpu"])
        self.assertIn("kvm_amd", facts["modules"])

    def test_no_vmx(self):
        self.leaf(1, ecx=0)
        self.flags, self.vmx, self.msrs, self.kvm, self.parameters = "fpu", None, None, None, {}
        lacks = dict(VT_x="missing", EPT="missing", VMFUNC="missing", modules="missing", parameter_epk="missing",
                     TDP_MMU="missing", dev_kvm="missing", KVM_CAP_EPK="missing")
        facts = self.check(**lacks)
        self.assertIn("make demo", facts["VT-x"])
        self.leaf(1, ecx=1 << 31)
        self.leaf(0x40000000, **words("KVMKVMKVM\0\0\0", ("ebx", "ecx", "edx")))
        facts = self.check(nested="less", **lacks)
        self.assertIn("nested=1", facts["VT-x"])
        self.assertIn('"KVMKVMKVM"', facts["nested"])

    def test_vmx_locked_off(self):
        self.flags, self.vmx = "fpu", None
        self.msrs[0x3a] = LOCKED
        facts = self.check(VT_x="missing", EPT="missing", VMFUNC="missing")
        self.assertIn("switched off by the firmware", facts["VT-x"])
        self.assertIn("setup", facts["VT-x"])

    def test_vmx_not_used(self):
        # Whoever is not root sees this of a CPU on which it is locked.
        self.flags, self.vmx, self.msrs = "fpu vmxx vmy", None, None
        facts = self.check(VT_x="missing", EPT="missing", VMFUNC="missing")
        self.assertIn("does not use it", facts["VT-x"])
        # Trusted execution alone.
        self.flags, self.msrs = "fpu vmx", {0x3a: LOCKED | 2, **{0x48b: 1 << 33 | 1 << 45, 0x48c: 0x4004040, 0x491: 1}}
        self.check()

    def test_ept(self):
        self.msrs[0x48b] = 1 << 45
        facts = self.check(EPT="missing")
        self.msrs[0x48b] |= 1 << 33
        for bit, name in (6, "four levels"), (14, "write-back"), (26, "global INVEPT"):
            cap = self.msrs[0x48c]
            self.msrs[0x48c] &= ~(1 << bit)
            facts = self.check(EPT="missing")
            self.assertIn(f"without {name} ", facts["EPT"])
            self.msrs[0x48c] = cap

    def test_vmfunc(self):
        self.msrs[0x491] = 2
        self.check(VMFUNC="missing")
        self.msrs[0x491] = 1
        self.msrs[0x48b] = 1 << 33
        self.check(VMFUNC="missing")
        # A register that is not there.
        self.msrs = {0x3a: 5, 0x48b: 1 << 33 | 1 << 45, 0x48c: 0x4004040}
        self.check(VMFUNC="missing")

    def test_one_cpu_lacks(self):
        self.make()
        self.write("dev/cpu/2/msr", "3a 5\n48b 0000000200000000\n48c 4004040\n491 0\n")
        self.check(VMFUNC="missing")
        self.write("dev/cpu/2/msr", "3a 5\n48b 0000200200000000\n48c 4004040\n491 1\n")
        self.check()
        self.write("dev/cpu/2/msr", "3a 5\n48b 0000200200000000\n48c 4004040\n")
        self.check(VMFUNC="missing")

    def test_not_root(self):
        self.msrs = None
        self.check()
        self.vmx = "ept ept_ad"
        self.check(VMFUNC="missing")
        self.vmx = "eptp_switching"
        self.check(EPT="missing")
        self.vmx = None
        facts = self.check(EPT="missing", VMFUNC="less")
        self.assertIn("modprobe msr", facts["VMFUNC"])

    def test_keys(self):
        self.leaf(7, ecx=1 << 3)
        self.assertIn("nopku", self.check(keys="missing")["keys"])
        self.leaf(7, ecx=0)
        self.assertNotIn("nopku", self.check(keys="missing")["keys"])

    def test_nested(self):
        self.leaf(1, ecx=1 << 5 | 1 << 31)
        self.leaf(0x40000000, **words(HYPERV, ("ebx", "ecx", "edx")))
        self.check(nested="missing")
        self.leaf(0x40000000, ebx=0xff0a1b22, ecx=0x85c2c380, edx=0x9d80c2)
        self.check(nested="less")

    def test_kernel(self):
        for release, ours, state in (("6.1.0", True, None), ("6.13.3", True, None), ("6.13.3", False, "missing"),
                                     ("6.10.1", False, "missing"), ("6.1.192-epk", False, None), ("6.1-rc1", False, None),
                                     ("6.12.117+deb12-amd64", False, None)):
            self.release = release
            if ours:
                self.check()
                continue
            shutil.rmtree(self.root / "sys/module")
            self.parameters["kvm_intel"] = {"ept": "Y"}
            self.kvm = "api 12\nepts 0\n"
            lacks = dict(modules="missing", parameter_epk="missing", KVM_CAP_EPK="missing")
            facts = self.check(**lacks, **({"kernel": state} if state else {}))
            self.assertIn("epk-host modules install", facts["modules"])

    def test_secure_boot(self):
        self.write(SECUREBOOT, bytes([6, 0, 0, 0, 1]))
        self.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
        self.assertIn("on, and the kernel locked down: integrity", self.check()["Secure Boot"])
        shutil.rmtree(self.root / "sys/module")
        self.parameters["kvm_intel"] = {}
        self.assertIn("mok.pub", self.check(modules="missing", parameter_epk="missing",
                                            Secure_Boot="less")["Secure Boot"])

    def test_secure_boot_off(self):
        for variable, lockdown in (bytes([6, 0, 0, 0, 0]), "[none] integrity\n"), (b"\6\0\0\0", "[integrity"), (b"", ""):
            self.write(SECUREBOOT, variable)
            self.write("sys/kernel/security/lockdown", lockdown)
            self.assertEqual(self.check()["Secure Boot"], "off -> ")

    def test_modules(self):
        self.parameters = {"kvm": {"tdp_mmu": "Y"}}
        facts = self.check(modules="missing", parameter_epk="missing")
        self.assertIn("modprobe kvm_intel", facts["modules"])

    def test_parameters(self):
        for value, state in ("off", "missing"), ("on", "missing"), ("Any", "missing"), ("", "missing"):
            self.parameters["kvm_intel"]["epk"] = value
            facts = self.check(parameter_epk=state)
            self.assertEqual([word in facts["parameter epk"] for word in ("which QEMU does not", "d/epk-host.conf")], [value == "on", True])
        self.parameters = {"kvm_intel": {"epk": "any", "ept": "N"}, "kvm": {"epk_debug": "Y", "tdp_mmu": "N"}}
        self.assertIn("echo Y >", self.check(parameter_ept="missing", epk_debug="less", TDP_MMU="missing")["TDP MMU"])

    def test_tdp_mmu_of_later_kernels(self):
        """Since Linux 6.3 nobody can write it."""
        self.parameters["kvm"]["tdp_mmu"] = "N"
        self.make()
        (self.root / "sys/module/kvm/parameters/tdp_mmu").chmod(0o444)
        self.assertIn("-> load kvm without tdp_mmu=0", self.check(TDP_MMU="missing")["TDP MMU"])
        shutil.rmtree(self.root / "sys/module/kvm_intel")
        del self.parameters["kvm_intel"]
        self.assertIn("-> see modules", self.check(TDP_MMU="missing", modules="missing", parameter_epk="missing")["TDP MMU"])

    def test_device(self):
        self.kvm = "error 13\napi 12\nepts 512\n"
        facts = self.check(dev_kvm="missing", KVM_CAP_EPK="missing")
        self.assertIn("Permission denied", facts["/dev/kvm"])
        self.assertIn("adduser USER", facts["/dev/kvm"])
        self.kvm = "error 16\n"
        self.assertIn("dmesg", self.check(dev_kvm="missing", KVM_CAP_EPK="missing")["/dev/kvm"])
        self.kvm = "api 11\nepts 512\n"
        self.check(dev_kvm="missing", KVM_CAP_EPK="missing")
        self.kvm = "api 12\nepts -1\n"
        self.check(KVM_CAP_EPK="missing")

    def test_programs(self):
        self.program("qemu-system-x86_64", "echo 'QEMU emulator version 6.2.0'")
        self.check(QEMU="less")
        self.program("qemu-system-x86_64", "printf '\\033[31mQEMU\\377\\n'; exit 0")
        self.check(QEMU="less")
        self.program("qemu-system-x86_64", "echo 'QEMU emulator version 7.2.0'; exit 1")
        self.check(QEMU="less")
        self.program("qemu-system-x86_64", "echo 'QEMU emulator version 10.0.2'; head -c 1000000 /dev/zero")
        self.path += ":/usr/bin:/bin"
        self.check()

    def test_no_programs(self):
        shutil.rmtree(self.bin)
        (self.root / "usr/share/OVMF/OVMF_CODE_4M.fd").unlink()
        self.check(QEMU="less", qemu_img="less", libvirt="less", firmware="less")

    def test_libvirt(self):
        self.socket.close()
        facts = self.check(libvirt="less")
        self.assertIn("9.0.0, but no daemon", facts["libvirt"])

    def test_nothing(self):
        """An empty machine."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        rc, out, err = self.run_tool("check", "--json")
        self.assertEqual((rc, err), (1, ""))
        self.assertFalse(json.loads(out)["works"])

    def test_garbage(self):
        """Whatever a file holds, or is: an answer, and JSON."""
        self.make()
        self.write(SECUREBOOT, bytes(5))
        self.write("sys/kernel/security/lockdown", "[none]\n")
        files = [path for path in self.root.rglob("*") if path.is_file() and self.bin not in path.parents]
        self.assertGreater(len(files), 10)
        noise = random.Random(1)
        for path in files:
            good = path.read_bytes()
            for bad in (b"", good[:len(good) // 2], noise.randbytes(5000), b"\0" * 100, b"x" * (4 << 20),
                        b"flags : " + b"vmx " * (1 << 20), good.replace(b"\n", b""), good + noise.randbytes(100),
                        b"-1 " * 100, b"%s%n" * 50, b"ffffffffffffffffffff " * 8, b"]["):
                path.write_bytes(bad)
                self.answers(path)
            path.unlink()
            path.mkdir()
            self.answers(path)
            path.rmdir()
            os.mkfifo(path)
            self.answers(path)
            path.unlink()
            path.symlink_to(path.name)
            self.answers(path)
            path.unlink()
            path.write_bytes(good)

    def answers(self, path):
        rc, out, err = self.run_tool("check", "--json")
        told = json.loads(out)
        self.assertIn(rc, (0, 1), path)
        self.assertEqual((told["works"], err), (not rc, ""), path)


class Status(Made):
    """What debugfs has of VMs, and what their processes call themselves."""

    NUMBERS = {"epk_views": 7, "epk_links": 3000, "epk_domain_faults": 20, "epk_refused_vmfuncs": 1}

    def vm(self, pid, args=None, numbers=None):
        folder = self.root / f"sys/kernel/debug/kvm/{pid}-11"
        folder.mkdir(parents=True)
        for name, value in (self.NUMBERS if numbers is None else numbers).items():
            self.write(folder / name, f"{value}\n")
        if args is not None:
            self.write(f"proc/{pid}/cmdline", b"\0".join(args) + b"\0")

    def status(self):
        rc, out, err = self.run_tool("status", "--json")
        text_rc, text, text_err = self.run_tool("status")
        self.assertEqual((text_rc, text_err), (rc, err))
        self.told = json.loads(out)
        self.assertEqual(self.told["complete"], not rc)
        return rc, {vm["pid"]: vm for vm in self.told["vms"]}, text, err

    def test_none(self):
        (self.root / "sys/kernel/debug/kvm").mkdir(parents=True)
        self.assertEqual(self.status(), (0, {}, "0 VMs, 0 with EPK\n", ""))

    def test_vms(self):
        self.vm(10, [b"qemu-system-x86_64", b"-name", b"guest=web,,1,debug-threads=on", b"-m", b"1"])
        self.vm(11, [b"qemu", b"-name", b"plain"], dict(self.NUMBERS, epk_views=0, epk_links=0))
        self.vm(12, [b"other"], {})
        self.vm(13)
        for other in ("vcpu0", "13", "14-", "-1", "15-1x", "x-1", "99999999999-1", "halt_exits-1"):
            (self.root / "sys/kernel/debug/kvm" / other).mkdir()
        rc, vms, text, _ = self.status()
        self.assertEqual((rc, sorted(vms)), (0, [10, 11, 12, 13]))
        self.assertEqual(vms[10], {"pid": 10, "name": "web,1", "epts": 7, "links": 3000, "domain_faults": 20,
                                   "refused_vmfuncs": 1})
        self.assertEqual((vms[11]["name"], vms[11]["epts"], vms[12]["name"], vms[12]["epts"]), ("plain", 0, "", None))
        self.assertIn("4 VMs, 2 with EPK", text)
        self.assertRegex(text, r"(?m)^ +10 +7 +3000 +20 +1  web,1$")
        self.assertRegex(text, r"(?m)^ +12 +- +- +- +-  \(it has none\)$")

    def test_hostile_names(self):
        names = (b'"}], "complete": true}', b"\x1b]0;owned\x07", b"\x9b31m", b"a\nb\r\tc", b"\\u0000\\", b"\xff\xfe",
                 "größe \u202e\U0001f600".encode(), b"\xed\xa0\x80\xc0\xaf\xf4\x90\x80\x80\xe2\x82", b"x" * 100000,
                 b"\xc3" * 300, b"%n%s", b"\x7f")
        for pid, name in enumerate(names, 1):
            self.vm(pid, [b"qemu", b"-name", name])
        rc, vms, text, _ = self.status()
        self.assertEqual((rc, len(vms), len(text.splitlines())), (0, len(names), len(names) + 2))
        self.assertTrue(all(c == "\n" or " " <= c <= "~" for c in text))
        self.assertEqual(vms[1]["name"], names[0].decode().replace(",", "", 0).split(",")[0])
        self.assertEqual(vms[2]["name"], "\x1b]0;owned\x07")
        self.assertEqual(vms[6]["name"], "\ufffd\ufffd")
        self.assertEqual(vms[7]["name"], names[6].decode())
        self.assertEqual(vms[8]["name"], "\ufffd" * 11)
        self.assertEqual(len(vms[9]["name"]), 255)

    def test_hostile_arguments(self):
        for pid, args in enumerate(([], [b""], [b"-name"], [b"qemu", b"-name"], [b"-name", b""], [b"x" * (1 << 20)],
                                    [b"a"] * (1 << 18), [b"x" * ((1 << 18) - 8), b"-name", b"late"]), 1):
            self.vm(pid, args)
        rc, vms, _, _ = self.status()
        self.assertEqual((rc, {vm["name"] for vm in vms.values()}), (0, {""}))

    def test_hostile_numbers(self):
        self.vm(1, numbers={"epk_views": "x", "epk_links": "", "epk_domain_faults": "9" * 100})
        self.vm(2, numbers={})
        (self.root / "sys/kernel/debug/kvm/2-11/epk_views").mkdir()
        rc, vms, _, err = self.status()
        self.assertEqual((rc, vms[1]["epts"], vms[2]["epts"]), (1, None, None))
        self.assertIn("Is a directory", err)

    def test_not_there(self):
        rc, vms, _, err = self.status()
        self.assertEqual((rc, vms), (1, {}))
        self.assertIn("KVM is not loaded", err)
        (self.root / "sys/module/kvm").mkdir(parents=True)
        self.assertIn("mount -t debugfs", self.status()[3])

    @unittest.skipIf(os.geteuid(), "root may be another user")
    def test_not_root(self):
        self.vm(1)
        (self.root / "sys/kernel/debug").chmod(0o700)
        rc, out, err = self.run_tool("status", "--json", user=NOBODY)
        self.assertEqual((rc, json.loads(out)), (1, {"vms": [], "complete": False}))
        self.assertIn("for root to see", err)
        (self.root / "sys/kernel/debug").chmod(0o755)
        (self.root / "sys/kernel/debug/kvm/1-11/epk_views").chmod(0)
        rc, out, err = self.run_tool("status", "--json", user=NOBODY)
        self.assertEqual((rc, json.loads(out)["vms"][0]["epts"]), (1, None))


def bzimage(whole=True, flags=1, version=0x20f):
    head = bytearray(b"\0" * 1024)
    head[0x1f1] = 1
    struct.pack_into("<I", head, 0x1f4, 64)
    struct.pack_into("<H4sH", head, 0x1fe + 4, 0x0000, b"\0\0\0\0", 0)
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x1fe, 0xaa55)
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<H", head, 0x236, flags)
    return bytes(head) + bytes(1024 if whole else 1023)


def elf(machine=62, kind=2, note=True, segment=None, wide=2, offset=120):
    ident = b"\x7fELF" + bytes([wide, 1, 1]) + bytes(9)
    size = 64 + 56 + 20
    head = ident + struct.pack("<HHIQQQIHHHHHH", kind, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 4, 4, offset, 0, 0, segment or 20, 20, 4)
    notes = struct.pack("<III4sI", 4, 4, 18 if note else 17, b"Xen\0", 0x1000000)
    assert len(head + program + notes) == size
    return head + program + notes


def mbr(sectors=2048, start=1, count=2047):
    head = bytearray(512)
    head[446 + 4] = 0x83
    struct.pack_into("<II", head, 446 + 8, start, count)
    struct.pack_into("<H", head, 510, 0xaa55)
    return bytes(head) + bytes(512 * (sectors - 1))


def gpt(sectors=2048, last=2047):
    head = bytearray(mbr(sectors, 1, 2047))
    head[446 + 4] = 0xee
    head[512:520] = b"EFI PART"
    struct.pack_into("<Q", head, 512 + 32, last)
    return bytes(head)


class Run(Made):
    def setUp(self):
        super().setUp()
        self.path = f"{self.bin}:/usr/bin:/bin"
        (self.bin / "qemu-img").unlink()
        self.program("qemu-system-x86_64", 'for word; do printf "<%s>" "$word"; done; echo')
        script = self.write("usr/lib/epk/microvm.sh", (TOP / "qemu-configs/microvm.sh").read_text())
        script.chmod(0o755)
        self.make()

    def launch(self, *args):
        return self.run_tool("run", *args)

    def says(self, content, what, *args, name="image", rc=2):
        path = self.write(name, content) if content is not None else self.root / name
        got, out, err = self.launch(*args, path)
        self.assertEqual((got, out), (rc, ""), err)
        self.assertIn(what, err)
        self.assertTrue(all(line.startswith("epk-host: ") for line in err.splitlines()), err)

    def starts(self, *args):
        rc, out, err = self.launch(*args)
        self.assertEqual((rc, err), (0, ""))
        return out

    def qcow2(self, name="disk.qcow2", *args):
        path = self.root / name
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *args, path, "1M"], check=True)
        return path

    def test_disks(self):
        raw = self.write("disk,1.raw", mbr())
        self.assertEqual(self.starts("--memory", "2048", "--cpus", "3", raw, "--", "-nic", "user"),
                         "<-machine><q35,accel=kvm><-cpu><host><-smp><3><-m><2048><-nodefaults><-no-user-config><-display><none>"
                         "<-serial><mon:stdio><-blockdev><driver=raw,node-name=disk,file.driver=file,"
                         f"file.filename={self.root}/disk,,1.raw><-device><virtio-blk-pci,drive=disk><-nic><user>\n")
        self.assertIn("driver=raw,", self.starts(self.write("gpt", gpt())))
        self.assertIn("driver=qcow2,", self.starts(self.qcow2()))
        self.assertIn("driver=qcow2,", self.starts(self.qcow2("comma,.qcow2")))
        self.assertIn("<q35,accel=tcg><-cpu><max>", self.starts("--emulate", raw))

    def test_kernels(self):
        kernel = self.write("bzImage", bzimage())
        initrd = self.write("initrd", "x")
        disk = self.write("d,isk", "x")
        # What the script itself asks of this machine is not made up.
        out = self.starts("--dry-run", "--initrd", initrd, "--disk", disk, "--append", "a='b c'", kernel, "--", "-foo")
        self.assertTrue(out.startswith("qemu-system-x86_64 -M microvm,accel=kvm,"))
        self.assertIn(f"-kernel {kernel} -append 'console=ttyS0 a='\\''b c'\\''' ", out)
        self.assertIn(f"file={self.root}/d,,isk,", out)
        self.assertTrue(out.endswith(" -foo \n"))
        out = self.starts("--emulate", "--initrd", initrd, "--append", "x", kernel)
        self.assertIn(f"<-kernel><{kernel}><-append><console=ttyS0 x><-initrd><{initrd}>", out)
        self.assertIn("microvm", self.starts("--dry-run", self.write("vmlinux", elf())))

    def test_dry_run_is_what_runs(self):
        raw = self.write("it's a disk.raw", mbr())
        line = self.starts("--dry-run", raw)
        done = subprocess.run(["sh", "-c", line], env={"PATH": self.path}, capture_output=True, check=True)
        self.assertEqual(done.stdout.decode(), self.starts(raw))

    def test_no_kvm(self):
        raw = self.write("disk.raw", mbr())
        self.starts("--dry-run", raw)
        for kvm, epk, what in ("error 13\n", "any", "Permission denied"), ("api 12\nepts 0\n", "off", "epk: off"), \
                ("api 12\nepts 512\n", "on", "epk: on"):
            self.write("dev/kvm", kvm)
            self.write("sys/module/kvm_intel/parameters/epk", epk + "\n")
            rc, out, err = self.launch(raw)
            self.assertEqual((rc, out), (1, ""))
            self.assertIn(what, err)
            self.assertIn("--emulate", err)
            self.assertIn("make demo", err)
            self.starts("--emulate", raw)

    def test_no_image(self):
        self.says(None, "No such file", name="nothing")
        self.says(None, "is a directory", name="bin")
        os.mkfifo(self.root / "pipe")
        self.says(None, "neither file nor disk", name="pipe")
        self.says(b"", "is empty")
        if not os.geteuid():
            path = self.write("secret", mbr())
            path.chmod(0)
            rc, _, err = self.run_tool("run", path, user=NOBODY)
            self.assertEqual(rc, 2)
            self.assertIn("Permission denied", err)
        self.says(None, "\\x1b[31m: File name too long", name="\x1b[31m" * 1000)

    def test_no_disk(self):
        self.says(b"hello", "no whole sectors")
        self.says(b"hello".ljust(1024), "no boot sector")
        self.says(bytes(1 << 20), "no boot sector")
        self.says(mbr(1024), "partition 1 ends at 2048")
        self.says(mbr()[:-1], "no whole sectors")
        self.says(gpt(2047), "GPT ends at 2047")
        self.says(mbr(2048, 0xffffffff, 0xffffffff), "cut off")
        self.says(b"KDMV" + mbr()[4:], "another hypervisor")
        self.says(b"\x1f\x8b" + mbr()[2:], "compressed")

    def test_filesystem(self):
        """A disk without partitions, with code where they would be."""
        head = bytearray(mbr())
        head[446:510] = bytes([0x80] * 16 + [0xe8] * 48)
        self.assertIn("driver=raw,", self.starts(self.write("fat", bytes(head))))

    def test_qcow2(self):
        good = self.qcow2().read_bytes()
        self.says(good, "--format qcow2", name="disk.img")
        self.assertIn("driver=qcow2", self.starts("--format", "qcow2", self.root / "disk.img"))
        # What a guest has written into a raw disk of its own is not followed.
        trap = bytearray(good.ljust(1 << 20, b"\0"))
        trap[446:512] = bytes(66)
        trap[510:512] = b"\x55\xaa"
        self.assertIn("driver=raw,", self.starts(self.write("disk.raw", bytes(trap))))
        self.says(mbr(), "no qcow2 image, as its name says", name="other.qcow2")
        self.says(mbr(), "no qcow2 image", "--format", "qcow2", name="other.raw")
        self.says(good[:100], "", name="short.qcow2")
        self.says(good[:70000], "qcow2", name="half.qcow2")
        bad = bytearray(good)
        struct.pack_into(">Q", bad, 72, 2)
        self.says(bytes(bad), "marked as corrupt", name="corrupt.qcow2")
        struct.pack_into(">Q", bad, 72, 4)
        self.says(bytes(bad), "read another file", name="data.qcow2")
        struct.pack_into(">I", bad, 4, 9)
        struct.pack_into(">Q", bad, 72, 0)
        self.says(bytes(bad), "qemu-img says", name="version.qcow2")
        noise = random.Random(2)
        for i in range(20):
            bad = bytearray(good)
            for _ in range(4):
                bad[noise.randrange(8, 104)] = noise.randrange(256)
            rc, _, err = self.launch(self.write("noise.qcow2", bytes(bad)))
            self.assertIn(rc, (0, 2), err)

    def test_backing(self):
        self.write("base.raw", mbr())
        overlay = self.qcow2("over.qcow2", "-F", "raw", "-b", self.root / "base.raw")
        self.says(None, "read another file", name="over.qcow2")
        self.assertIn("driver=qcow2", self.starts("--backing", overlay))
        (self.root / "base.raw").unlink()
        rc, out, err = self.launch(overlay)
        self.assertEqual((rc, out), (2, ""))

    def test_full_qcow2_cut_off(self):
        self.write("full.raw", mbr()[:512] + os.urandom((1 << 20) - 512))
        path = self.root / "full.qcow2"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", self.root / "full.raw", path], check=True)
        self.starts(path)
        whole = path.read_bytes()
        for part in (len(whole) - (1 << 18), len(whole) // 2):
            self.says(whole[:part], "damaged or cut off", name="part.qcow2")

    def test_no_qemu_img(self):
        self.qcow2()
        self.path = f"{self.bin}"
        self.says(None, "apt-get install qemu-utils", name="disk.qcow2", rc=1)

    def test_qemu_img_check(self):
        path = self.qcow2()
        for status, what in (1, "check says: not now"), (2, "damaged or cut off"), (63, "check says: not now"):
            self.program("qemu-img", f'[ "$1" = info ] || {{ echo not now; exit {status}; }}')
            self.says(None, what, name="disk.qcow2")
        # Clusters that nobody uses.
        self.program("qemu-img", '[ "$1" = info ] || exit 3')
        self.starts(path)

    def test_qemu_img_hangs(self):
        self.qcow2()
        self.program("qemu-img", "kill -9 $$")
        self.says(None, "qemu-img says", name="disk.qcow2")

    def test_wrong_kernels(self):
        self.says(bzimage(whole=False), "cut off: 2047 bytes of 2048")
        self.says(bzimage(flags=0), "32 bits")
        self.says(bzimage(version=0x20a), "32 bits")
        self.says(bzimage()[:0x300], "cut off")
        self.says(elf(machine=183), "another machine")
        self.says(elf(wide=1), "another machine")
        self.says(elf(kind=1), "no program")
        self.says(elf(note=False), "no kernel that QEMU can enter")
        self.says(elf(segment=21), "cut off")
        self.says(elf(segment=(1 << 64) - 1), "cut off")
        self.says(elf(offset=141), "cut off")
        self.says(elf()[:90], "cut off")
        self.says(elf()[:40], "cut off")
        arm = bytearray(4096)
        arm[0x38:0x3c] = b"ARM\x64"
        self.says(bytes(arm), "kernel for ARM")
        noise = random.Random(3)
        for _ in range(50):
            bad = bytearray(elf())
            for _ in range(5):
                bad[noise.randrange(16, len(bad))] = noise.randrange(256)
            self.assertIn(self.launch("--dry-run", self.write("noise", bytes(bad)))[0], (0, 2))

    def test_wrong_arguments(self):
        raw = self.write("disk.raw", mbr())
        for args in ((), (raw, raw), ("--memory", "x", raw), ("--memory", "0", raw), ("--memory", "-1", raw),
                     ("--memory", "1024M", raw), ("--cpus", "0", raw), ("--cpus", "", raw), ("--format", "vmdk", raw),
                     ("--append", "x", raw), ("--initrd", raw, raw), ("--disk", raw, raw), ("--wrong", raw), ("--memory",),
                     ("--initrd", self.root / "none", self.write("k", bzimage())), ("--", raw),
                     (raw, "--", *["x"] * 300)):
            rc, out, err = self.launch(*args)
            self.assertEqual((rc, out), (2, ""), args)
            self.assertTrue(err, args)

    def test_no_qemu(self):
        self.path = "/nowhere"
        self.says(mbr(), "apt-get install qemu-system-x86", "--emulate", name="disk.raw", rc=1)
        (self.root / "usr/lib/epk/microvm.sh").unlink()
        self.says(bzimage(), "the package epk-host has it", rc=1)


class Rest(Made):
    def test_modules(self):
        for word in "install", "load", "restore":
            rc, out, err = self.run_tool("modules", word)
            self.assertEqual((rc, out), (1, ""))
            self.assertIn("epk-kvm-dkms has it", err)
        self.write("usr/lib/epk/host-modules", '#!/bin/sh\necho "$# $1"\nexit 7\n').chmod(0o755)
        self.assertEqual(self.run_tool("modules", "load"), (7, "1 load\n", ""))
        for args in (), ("remove",), ("load", "load"), ("--", "load"):
            rc, out, _ = self.run_tool("modules", *args)
            self.assertEqual((rc, out), (2, ""))

    def test_usage(self):
        for args in (), ("chek",), ("check", "x"), ("check", "--jsom"), ("status", "--json", "x"), ("-x",), ("--json",):
            rc, out, err = self.run_tool(*args)
            self.assertEqual((rc, out), (2, ""), args)
            self.assertIn("usage: epk-host", err)
        for args in ("--help",), ("-h",), ("check", "--help"), ("status", "-h"), ("run", "--help"), ("modules", "--help"):
            self.assertRegex(self.run_tool(*args)[1], "^usage: epk-host")
        for args in ("--json", "modules", "load"), ("--json", "run", "x"), ("modules", "load", "--json"):
            self.assertEqual(self.run_tool(*args)[:2], (2, ""))
        version = (TOP / "guest-lib/include/epk.h").read_text()
        number = ".".join(re.search(rf"EPK_VERSION_{part} (\d+)", version)[1] for part in ("MAJOR", "MINOR"))
        self.assertEqual(self.run_tool("--version"), (0, f"epk-host {number}\n", ""))
        self.make()
        self.assertEqual(self.run_tool("--json", "check")[1], self.run_tool("check", "--json")[1])

    def test_nobody_listens(self):
        self.make()
        (self.root / "sys/kernel/debug/kvm").mkdir(parents=True)
        for command in "check", "status":
            with open("/dev/full", "w") as full:
                done = subprocess.run([TOOL, "--root", self.root, command], stdout=full, stderr=subprocess.DEVNULL)
            self.assertEqual(done.returncode, 2, command)

    def test_this_machine(self):
        """Whatever it is: an answer, the same in both forms."""
        done = [subprocess.run([TOOL, "check", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True)
                for args in ([], ["--json"])]
        told = json.loads(done[1].stdout)
        self.assertIn(done[0].returncode, (0, 1))
        self.assertEqual(told["works"], not done[0].returncode)
        self.assertEqual([fact["fact"] for fact in told["facts"] if fact["fact"] in FACTS], FACTS)

    def test_fleet(self):
        """The recipes, here and there."""
        blocks = re.findall(r"(?ms)^```sh$(.*?)^```$", (TOP / "docs/fleet.md").read_text())
        recipes = [block.replace("/etc/", f"{self.root}/etc/") for block in blocks if "jq" in block]
        self.assertEqual(len(recipes), 3)
        self.program("systemctl", "exit 0")
        self.program("epk-host", f'exec {TOOL} --root {self.root} "$@"')
        for folder in "kubernetes/node-feature-discovery/features.d", "nova/provider_config":
            (self.root / "etc" / folder).mkdir(parents=True)
        labels, traits = self.root / "etc/kubernetes/node-feature-discovery/features.d", self.root / "etc/nova/provider_config"

        def follow():
            self.make()
            done = [subprocess.run(["sh", "-c", recipe], env={"PATH": f"{self.bin}:{os.environ['PATH']}"}, check=True,
                                   capture_output=True, text=True) for recipe in recipes]
            self.assertEqual([run.stderr for run in done], [""] * 3)
            self.assertEqual(os.listdir(labels), ["epk"])
            return done[0].stdout

        self.assertEqual(follow(), '{"works":true,"epts":512,"address_bits":46}\n')
        self.assertEqual((labels / "epk").read_text(), "feature.node.kubernetes.io/epk.epts=512\n"
                                                       "feature.node.kubernetes.io/epk.geometry=512-46\n")
        self.assertEqual(os.listdir(traits), ["epk.yaml"])
        told = json.loads((traits / "epk.yaml").read_text())
        self.assertEqual(told["providers"][0]["traits"]["additional"], ["CUSTOM_EPK_512_46"])
        self.assertEqual(told["providers"][0]["identification"]["uuid"], "$COMPUTE_NODE")
        self.kvm = "error 13\n"
        out = follow()
        self.assertIn('"works":false', out)
        self.assertIn("/dev/kvm: join its group", out)
        self.assertEqual((labels / "epk").read_text(), "")
        self.assertEqual(os.listdir(traits), [])

    def test_manual(self):
        page = (TOP / "kvm-patches/host/epk-host.8").read_text().replace("\\-", "-").replace("\\&", "")
        for word in FACTS + ["--json", "--emulate", "--backing", "--dry-run", "--format", "--root", "--append"]:
            self.assertIn(word, page)


if __name__ == "__main__":
    TOOL = os.path.abspath(sys.argv.pop(1))
    unittest.main()
