#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""epk_hook.py EPK-HOST: what the host's tool says when libvirt, or who moves a guest by hand, asks before a move."""

import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import unittest
import xml.etree.ElementTree as ET

import epk_host

TOP = epk_host.TOP
HOOK = TOP / "kvm-patches/host/libvirt-hook"
SPACE = "urn:epk-on-kvm:guest:1"
ASKED = "migrate", "restore", "prepare"
PLAIN = "<domain type='kvm'><name>d</name><cpu mode='host-passthrough'/></domain>"


def domain(mark="epts='512' address-bits='46'", cpu="<cpu mode='host-passthrough'><maxphysaddr mode='passthrough'/></cpu>"):
    return (f"<domain type='kvm'><name>d</name><metadata><a:b xmlns:a='urn:a'/><epk:guest xmlns:epk='{SPACE}' {mark}/></metadata>"
            f"{cpu}<devices/></domain>")


class Hooked(epk_host.Made):
    def hook(self, xml, operation="migrate", part="begin", name="d"):
        """Exit status, and what is on standard error; on standard output there is never anything."""
        text = xml.encode() if isinstance(xml, str) else xml
        done = subprocess.run([epk_host.TOOL, "--root", self.root, "hook", name, operation, part, "-"], input=text,
                              capture_output=True, timeout=60, env={"PATH": "/nowhere"}, check=False)
        self.assertEqual(done.stdout, b"")
        return done.returncode, done.stderr.decode("ascii")

    def takes(self, xml, *args):
        self.assertEqual(self.hook(xml, *args), (0, ""), xml[:300])

    def refuses(self, word, xml, *args):
        rc, err = self.hook(xml, *args)
        self.assertEqual(rc, 1, (xml[:300], err))
        self.assertIn(word, err)

    def lacking(self):
        self.parameters["kvm_intel"]["epk"] = "off"
        self.kvm = "api 12\nepts 0\n"
        self.make()


class Hook(Hooked):
    def test_whole(self):
        self.make()
        for operation in ASKED:
            self.takes(domain(), operation)
            self.takes(PLAIN, operation)

    def test_lacking(self):
        """Who uses EPK is told why not, and nobody else is hindered."""
        self.lacking()
        for operation in ASKED:
            self.refuses("parameter epk: off -> ", domain(), operation)
            self.refuses("epk-host: d: its guest uses EPK, which this host does not give", domain(""), operation)
            self.takes(PLAIN, operation)

    def test_not_asked(self):
        self.lacking()
        for operation, part in (("started", "begin"), ("stopped", "end"), ("release", "end"), ("reconnect", "begin"),
                                ("attach", "begin"), ("migrate", "end"), ("", "")):
            self.takes(domain(), operation, part)
        for args in ("d",), ("d", "migrate"), ():
            self.assertEqual(self.run_tool("hook", *args)[:2], (2, ""))

    def test_nothing_here(self):
        """A machine without KVM."""
        shutil.rmtree(self.root)
        self.root.mkdir()
        self.refuses("/dev/kvm", domain())
        self.takes(PLAIN)

    def test_epts(self):
        self.kvm = "api 12\nepts 256\n"
        self.make()
        self.refuses("d: its guest has 512 EPTs, this host gives 256", domain())
        self.takes(domain("epts='256' address-bits='46'"))

    def test_address_bits(self):
        host = "<cpu mode='host-passthrough'>{}</cpu>"
        for here, mark, cpu, word in (
                (46, 46, host, None),
                (46, 40, host, "has 40 address bits and would have 46 here"), (40, 46, host, "has 46 address bits, this host has 40"),
                (46, 40, host.format("<maxphysaddr mode='passthrough' limit='40'/>"), None),
                (46, 46, host.format("<maxphysaddr mode='passthrough' limit='40'/>"), "would have 40"),
                (40, 40, host.format("<maxphysaddr mode='passthrough' limit='46'/>"), None),
                (46, None, host.format("<maxphysaddr mode='emulate' bits='40'/>"), None),
                (40, 40, host.format("<maxphysaddr mode='emulate' bits='40'/>"), None),
                (40, None, host.format("<maxphysaddr mode='emulate' bits='42'/>"), "has 42 address bits, this host has 40"),
                (46, 46, host.format("<maxphysaddr mode='emulate' bits='42'/>"), "metadata say 46 address bits, maxphysaddr says 42"),
                (46, 40, "<cpu mode='maximum'/>", "would have 46"),
                (46, 40, "<cpu mode='custom'/>", None), (39, 40, "<cpu mode='custom'/>", "this host has 39"), (46, 40, "", None)):
            self.leaf(0x80000008, eax=here)
            self.make()
            xml = domain("epts='32'" + (f" address-bits='{mark}'" if mark else ""), cpu.format(""))
            for operation in ASKED:
                if word:
                    self.refuses(word, xml, operation)
                else:
                    self.takes(xml, operation)

    def test_silent_of_geometry(self):
        """It may start anywhere; but it may not move where nobody can say whether it fits."""
        self.make()
        for mark in "", "epts='512'", "address-bits='46'":
            self.refuses("virsh metadata d urn:epk-on-kvm:guest:1 --key epk", domain(mark))
            self.takes(domain(mark), "prepare")
            self.takes(domain(mark), "restore")

    def test_configurations(self):
        files = sorted((TOP / "qemu-configs").glob("*.xml"))
        self.assertGreater(len(files), 6)
        self.make()
        for file in files:
            self.takes(file.read_bytes(), "prepare")
        self.lacking()
        for file in files:
            self.refuses("parameter epk", file.read_bytes(), "prepare")

    def test_wrong_marks(self):
        self.make()
        for mark in ("epts='0'", "epts='513'", "epts='-1'", "epts=''", "epts='0x20'", "epts='12 '", "epts='99999999999999999999'",
                     "address-bits='65'", "address-bits='0'", "address-bits='4.6'", "ept='3'", "epk:epts='3'", "a='&#10;'"):
            self.refuses("what its XML says of EPK cannot be used", domain(mark), "prepare")
        twice = domain().replace("</metadata>", f"<guest xmlns='{SPACE}'/></metadata>")
        self.refuses("it is there twice", twice, "prepare")
        for width in "mode='emulate'", "mode='emulate' bits='x'", "limit='0'":
            self.refuses("maxphysaddr", domain(cpu=f"<cpu><maxphysaddr {width}/></cpu>"), "prepare")


class Hostile(Hooked):
    def test_where(self):
        """What is EPK's mark, and what only looks so."""
        self.lacking()
        mark = f"<e:guest xmlns:e='{SPACE}'/>"
        for uses in (f"<metadata>{mark}</metadata>", f"<metadata><guest xmlns='{SPACE}'/></metadata>",
                     f"<metadata xmlns:z='{SPACE}'><z:guest/></metadata>",
                     "<metadata><e:guest xmlns:e='urn:&#101;pk-on-kvm:guest:1'/></metadata>"):
            self.refuses("parameter epk", f"<domain>{uses}</domain>")
        self.refuses("parameter epk", f"<domain><metadata>{mark}</metadata></domain>".encode("utf-16"))
        for plain in (mark, f"<description>{SPACE}</description>", f"<metadata><!-- {mark} --></metadata>", f"<devices>{mark}</devices>",
                      f"<metadata><![CDATA[{mark}]]></metadata>", f"<metadata><backup>{mark}</backup></metadata>",
                      f"<metadata xmlns='urn:x'>{mark}</metadata>", f"<metadata><e:other xmlns:e='{SPACE}'/></metadata>",
                      "<metadata><guest/></metadata>"):
            self.takes(f"<domain>{plain}</domain>")
        self.refuses("not of a domain", f"<network><metadata>{mark}</metadata></network>")

    def test_document_type(self):
        """No entity is ever read, and none grows."""
        self.make()
        secret = self.write("secret", "epts='1'")
        laughs = "".join(f"<!ENTITY l{i} '{f'&l{i - 1};' * 10}'>" for i in range(1, 12))
        for kind in ("<!DOCTYPE domain>", f"<!DOCTYPE domain SYSTEM '{secret}'>", f"<!DOCTYPE domain [<!ENTITY l0 'ha'>{laughs}]>",
                     f"<!DOCTYPE domain [<!ENTITY % x SYSTEM '{secret}'>%x;]>"):
            self.refuses("document type", kind + domain().replace("<name>d", "<name>&l11;"))
            self.takes(kind + PLAIN)

    def test_sizes(self):
        self.make()
        for text in "<a>" * 500_000, "x" * (17 << 20), "<a b='" + "y" * (8 << 20), f"<a {' '.join(f'a{i}=1' for i in range(10000))}>":
            self.takes(f"<domain>{text}")
            self.refuses("cannot be used", domain()[:-len("</domain>")] + text)
        self.refuses("longer than 16 MiB", domain() + " " * (16 << 20))
        self.takes(domain() + " " * (15 << 20))
        self.takes("")
        self.refuses("cannot be used", domain() + "\0")
        self.refuses("cannot be used", domain().encode() + b"\xff")

    def test_cut_off(self):
        self.make()
        text = domain()
        for length in range(len(text)):
            part = text[:length]
            if SPACE in part:
                self.refuses("cannot be used", part)
            else:
                self.takes(part)

    def test_spoilt(self):
        """Against another reading of the same: who says that it uses EPK is refused here, and nobody else."""
        self.lacking()
        noise, seen = random.Random(15), [0, 0]
        for _ in range(400):
            text = bytearray(domain().encode())
            for _ in range(noise.randrange(1, 4)):
                at = noise.randrange(len(text))
                kind = noise.randrange(3)
                piece = bytes(noise.choice(b"<>/='&;:! x\0\x80") for _ in range(noise.randrange(1, 3)))
                text[at:at + (kind < 2)] = piece if kind else b""
            try:
                root = ET.fromstring(bytes(text))
                uses = (root.tag == "domain" and root.find(f"metadata/{{{SPACE}}}guest") is not None or
                        root.tag != "domain" and SPACE.encode() in text)
            except (ET.ParseError, ValueError, LookupError):
                uses = SPACE.encode() in text
            rc, err = self.hook(bytes(text))
            self.assertEqual(rc, uses, (bytes(text), err))
            seen[uses] += 1
        self.assertGreater(min(seen), 20)

    def test_name(self):
        self.lacking()
        rc, err = self.hook(domain(), name="\x1b[31m-\xff%s%n" + "x" * 5000)
        self.assertEqual(rc, 1)
        self.assertIn("\\x1b[31m-", err)
        self.assertNotIn("\x1b", err)


class Script(Hooked):
    """As libvirt calls it."""

    def script(self, xml, operation="migrate"):
        text = HOOK.read_text()
        path = f"PATH={self.root}/tools:/usr/bin:/bin\n"
        self.assertEqual(text.count("\nPATH="), 1)
        script = self.write("hook", "".join(path if line.startswith("PATH=") else line for line in text.splitlines(True)))
        script.chmod(0o755)
        done = subprocess.run([script, "d", operation, "begin", "-"], input=xml, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.stdout, "")
        return done.returncode, done.stderr

    def test_with_the_tool(self):
        self.make()
        self.write("tools/epk-host", f'#!/bin/sh\nexec {epk_host.TOOL} --root {self.root} "$@"\n').chmod(0o755)
        self.assertEqual(self.script(domain()), (0, ""))
        self.lacking()
        self.assertEqual(self.script(PLAIN), (0, ""))
        rc, err = self.script(domain())
        self.assertEqual((rc, "parameter epk" in err), (1, True))

    def test_tool_dies(self):
        self.write("tools/epk-host", "#!/bin/sh\ncat >/dev/null\nkill -SEGV $$\n").chmod(0o755)
        self.assertNotEqual(self.script(domain())[0], 0)

    def test_without_the_tool(self):
        (self.root / "tools").mkdir()
        for mode in None, 0o644:
            if mode:
                self.write("tools/epk-host", "#!/bin/sh\n").chmod(mode)
            for operation in ASKED:
                rc, err = self.script(domain(), operation)
                self.assertEqual((rc, "epk-host" in err and "cannot be run" in err), (1, True))
                self.assertEqual(self.script(PLAIN, operation)[0], 0)
            self.assertEqual(self.script(domain(), "stopped")[0], 0)


class Asked(epk_host.Made):
    """epk-host check, for a guest that is elsewhere."""

    def asked(self, *args):
        self.make()
        rc, out, err = self.run_tool("check", "--json", *args)
        self.assertEqual(err, "")
        told = json.loads(out)
        self.assertEqual(told["works"], not rc)
        return rc, [fact for fact in told["facts"] if fact["fact"] == "guest"]

    def test_guest(self):
        self.leaf(0x80000008, eax=46)
        for args, rc, state in (((), 0, None), (("--epts", "512", "--address-bits", "46"), 0, "ok"), (("--epts", "256"), 0, "ok"),
                                (("--address-bits", "40"), 0, "less"), (("--address-bits", "48"), 1, "missing"),
                                (("--epts", "513"), 1, "missing")):
            got, facts = self.asked(*args)
            self.assertEqual((got, [fact["state"] for fact in facts]), (rc, [state] if state else []), args)
        self.kvm = "api 12\nepts 256\n"
        self.assertEqual(self.asked("--epts", "512")[0], 1)
        self.assertEqual(self.asked("--epts", "256")[0], 0)

    def test_wrong(self):
        for value in "", "0", "-1", "x", "12x", " 12", "1000000", "99999999999999999999":
            for option in "--epts", "--address-bits":
                rc, out, err = self.run_tool("check", option, value)
                self.assertEqual((rc, out), (2, ""), value)
                self.assertIn(f"{option} is a number, not", err)


if __name__ == "__main__":
    epk_host.TOOL = pathlib.Path(os.path.abspath(sys.argv.pop(1)))
    unittest.main()
