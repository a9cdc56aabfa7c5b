#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""epk_hook.py EPK-HOST: what the host's tool says when libvirt, or who moves a guest by hand, asks before a move."""

import json
import os
import pathlib
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
import unittest
import xml.etree.ElementTree as ET
import xml.parsers.expat

import epk_host

TOP = epk_host.TOP
HOOK = TOP / "kvm-patches/host/libvirt-hook"
SPACE = "urn:epk-on-kvm:guest:1"
ASKED = "migrate", "restore", "prepare"
NOT_ASKED = [(operation, part) for operation in ("reconnect", "started", "start", "stopped", "release", "attach", "")
             for part in ("begin", "end", "-", "")] + [(operation, "end") for operation in ASKED]
PLAIN = "<domain type='kvm'><name>d</name><cpu mode='host-passthrough'/></domain>"


def domain(mark="epts='512' address-bits='46'", cpu="<cpu mode='host-passthrough'><maxphysaddr mode='passthrough'/></cpu>"):
    return (f"<domain type='kvm'><name>d</name><metadata><a:b xmlns:a='urn:a'/><epk:guest xmlns:epk='{SPACE}' {mark}/></metadata>"
            f"{cpu}<devices/></domain>")


class Hooked(epk_host.Made):
    def command(self, operation="migrate", part="begin", name="d"):
        return [epk_host.TOOL, "--root", self.root, "hook", name, operation, part, "-"]

    def hook(self, xml, operation="migrate", part="begin", name="d", **variables):
        """Exit status, and what is on standard error; on standard output there is "yes" with 0 alone."""
        text = xml.encode() if isinstance(xml, str) else xml
        done = subprocess.run(self.command(operation, part, name), input=text, capture_output=True, timeout=60,
                              env={"PATH": "/nowhere", **variables}, check=False)
        self.assertEqual(done.stdout, b"" if done.returncode else b"yes\n")
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
        for operation, part in NOT_ASKED:
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
            self.refuses("virsh metadata --domain 'd' urn:epk-on-kvm:guest:1 --key epk", domain(mark))
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

    def test_prefixes(self):
        """The nearest of what binds a prefix counts."""
        self.lacking()
        ours, another = f"xmlns:z='{SPACE}'", "xmlns:z='urn:x'"
        mark = f"<z:guest {ours}/>"
        others = " ".join(f"xmlns:p{i}='urn:{i}'" for i in range(62))
        for uses in (f"<domain {ours}><metadata><z:guest/></metadata></domain>",
                     f"<domain {another}><metadata {ours}><z:guest/></metadata></domain>",
                     f"<domain {another}><metadata {another}>{mark}</metadata></domain>",
                     f"<domain><metadata {another}/><metadata {ours}><z:guest/></metadata></domain>",
                     f"<domain {ours}><cpu {another}/><metadata><z:guest/></metadata></domain>",
                     f"<domain {ours}><a {another}/><metadata><a {another}/><z:guest/></metadata></domain>",
                     f"<domain {others} {ours}><metadata {others} a='b'><z:guest/></metadata></domain>",
                     f"<domain xmlns=''><metadata xmlns=''><guest xmlns='{SPACE}' {another}/></metadata></domain>"):
            self.refuses("parameter epk", uses)
        for plain in (f"<domain {ours}><metadata><z:guest {another}/></metadata></domain>",
                      f"<domain {ours}><metadata {another}><z:guest/></metadata></domain>",
                      f"<domain {ours}><metadata><guest/><z:guests/><x:guest xmlns:x='{SPACE}x'/></metadata></domain>",
                      f"<domain><z:metadata {ours}>{mark}</z:metadata></domain>",
                      f"<domain {ours}><z:metadata>{mark}</z:metadata></domain>",
                      f"<domain {another}><z:metadata>{mark}</z:metadata></domain>"):
            self.takes(plain)
        # As much as is kept; and what is bound nowhere, or to an element that has ended.
        more, long = f"{others} xmlns:o='urn:o' xmlns:q='urn:q'", f"xmlns:{'z' * 64}"
        for text in (f"<domain {more} xmlns:z='@'><metadata><z:guest/></metadata></domain>",
                     f"<domain {long}='@'><metadata><{'z' * 64}:guest/></metadata></domain>",
                     "<domain><metadata xmlns:z='@'/><metadata><z:guest/></metadata></domain>",
                     "<domain><metadata><a xmlns:z='@'/><z:guest/></metadata></domain>",
                     "<domain xmlns='@'><metadata><guest/></metadata></domain>"):
            self.refuses("cannot be used", text.replace("@", SPACE))
            self.takes(text.replace("@", "urn:x"))
        width = "<maxphysaddr xmlns='urn:x' mode='emulate' bits='x'/>"
        self.refuses("parameter epk", domain(cpu=f"<cpu>{width}</cpu>"))
        self.refuses("cannot be used", domain(cpu=f"<cpu>{width.replace('urn:x', '')}</cpu>"))

    def costs(self, xml):
        """Exit status and seconds; more memory than the limit's is not had."""
        (self.root / "xml").write_text(xml)
        begin = time.monotonic()
        with open(self.root / "xml", encoding="ascii") as given, open(self.root / "said", "w", encoding="ascii") as said:
            tool = subprocess.Popen(self.command(), stdin=given, stdout=said, stderr=said)
            _, status, usage = os.wait4(tool.pid, 0)
            tool.returncode = os.waitstatus_to_exitcode(status)
        self.assertLess(usage.ru_maxrss, 320 << 10, xml[:300])
        return tool.returncode, time.monotonic() - begin

    def test_costs(self):
        """Time and memory are bounded, whatever there is to read; and all of it is judged."""
        self.lacking()
        uri, size = "u" * (512 << 10), 15 << 20
        prefixes = " ".join(f"xmlns:p{i}='urn:{i}'" for i in range(64))
        many = "".join(f" p:a{i}=''" for i in range(9_000))
        for root, text in ((f"xmlns:p='{uri[:200_000]}'", f"<b{many}/>"), (f"xmlns:p='{uri}'", "<b p:a=''/>" * 8_000),
                           ("", "<a>" * (size // 3)), ("", "<p:guest xmlns:p='urn:p'/>" * (size // 26)),
                           ("", "".join(f"<a{i}/>" for i in range(1_400_000))),
                           ("", "<b" + "".join(f" a{i}=''" for i in range(1_200_000)) + "/>"),
                           (prefixes, "<metadata " + prefixes + ">" + "<p0:guest/>" * 1_200_000 + "</metadata>"),
                           ("", f"<metadata {prefixes}/>" * 10_000), ("", "<b a='" + "&amp;" * (size // 5) + "'/>")):
            for mark in f"<metadata><e:guest xmlns:e='{SPACE}'/></metadata>", "":
                rc, seconds = self.costs(f"<domain {root}>{mark}{text}</domain>")
                self.assertEqual(rc, bool(mark), (mark, text[:100]))
                self.assertLess(seconds, 8, text[:100])

    def test_limits(self):
        """A daemon's own may be lower."""
        self.make()
        tool = self.root / "epk-host"
        shutil.copy(epk_host.TOOL, tool)
        for what, most in (resource.RLIMIT_CPU, 2), (resource.RLIMIT_AS, 200 << 20):
            done = subprocess.run([tool, *self.command()[1:]], input=domain().encode(), capture_output=True, timeout=60, check=False,
                                  user=epk_host.NOBODY, preexec_fn=lambda w=what, m=most: resource.setrlimit(w, (m, m)))
            self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"yes\n", b""), what)

    def test_reader_ends(self):
        """Where the one who reads does not come to an end, or to a bad one, the bytes decide."""
        self.make()
        for what in "for (;;) ;", "__builtin_trap();", "void *volatile got = malloc(1ul << 29); return got != NULL;":
            source = self.write("parse.c", f"#include <stdlib.h>\nint XML_Parse(void) {{ {what} }}\n")
            library = self.root / "parse.so"
            subprocess.run(["cc", "-O0", "-shared", "-fPIC", "-o", library, source], check=True)
            for text, rc in (domain(), 1), (PLAIN, 0):
                begin = time.monotonic()
                got, err = self.hook(text, LD_PRELOAD=str(library))
                self.assertEqual((got, "cannot be used" in err), (rc, bool(rc)), what)
                self.assertLess(time.monotonic() - begin, 40)

    def test_input(self):
        """What cannot be read is no leave; what comes slowly is read."""
        self.make()
        folder = os.open(self.root, os.O_RDONLY)
        done = subprocess.run(self.command(), stdin=folder, capture_output=True, timeout=60, check=False)
        os.close(folder)
        self.assertEqual((done.returncode, done.stdout, b"standard input: " in done.stderr), (2, b"", True))
        self.lacking()
        there, here = os.pipe()
        os.set_blocking(there, False)

        def slowly():
            for part in domain()[:100], domain()[100:]:
                time.sleep(0.5)
                os.write(here, part.encode())
            os.close(here)

        writer = threading.Thread(target=slowly)
        writer.start()
        done = subprocess.run(self.command(), stdin=there, capture_output=True, timeout=60, check=False)
        writer.join()
        os.close(there)
        self.assertEqual((done.returncode, b"parameter epk" in done.stderr), (1, True))

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
        for before in 16 << 20, (16 << 20) - 10, (32 << 20) - 30, 40 << 20:
            self.refuses("longer than 16 MiB", " " * before + domain() + " " * (17 << 20))
            self.takes(" " * before + PLAIN + " " * (17 << 20))
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
            rc, err = self.hook(bytes(text))
            try:
                xml.parsers.expat.ParserCreate().Parse(bytes(text), True)
                whole = True
            except (xml.parsers.expat.ExpatError, ValueError, LookupError):
                whole = False
            try:
                root = ET.fromstring(bytes(text))
                uses = (root.tag == "domain" and root.find(f"metadata/{{{SPACE}}}guest") is not None or
                        root.tag != "domain" and SPACE.encode() in text)
            except (ET.ParseError, ValueError, LookupError):
                # Prefixes that are wrong elsewhere nobody asks for.
                if whole:
                    continue
                uses = SPACE.encode() in text
            self.assertEqual(rc, uses, (bytes(text), err))
            seen[uses] += 1
        self.assertGreater(min(seen), 20)

    def test_name(self):
        self.lacking()
        rc, err = self.hook(domain(), name="\x1b[31m-\xff%s%n" + "x" * 5000)
        self.assertEqual(rc, 1)
        self.assertIn("\\x1b[31m-", err)
        self.assertNotIn("\x1b", err)

    def test_name_in_advice(self):
        """It can be given to a shell."""
        self.make()
        for name in "a b", "$(touch x)", "it's", "-x;'", "''":
            rc, err = self.hook(domain(""), name=name)
            words = err[err.index("virsh metadata"):err.index(" urn:")]
            said = subprocess.run(["sh", "-c", "printf '%s\\n' " + words], capture_output=True, text=True, timeout=60, check=True)
            self.assertEqual((rc, said.stdout), (1, f"virsh\nmetadata\n--domain\n{name}\n"))


class Script(Hooked):
    """As libvirt calls it."""

    def script(self, text, operation="migrate", part="begin", name="d", path=""):
        """Exit status, and what is on standard error."""
        lines = HOOK.read_text().splitlines(True)
        changed = {"PATH=": f"PATH={path}/usr/bin:/bin\n", "tool=": f"tool={self.root}/tools/epk-host\n"}
        self.assertEqual(sum(line[:5] in changed for line in lines), 2)
        script = self.write("hook", "".join(changed.get(line[:5], line) for line in lines))
        script.chmod(0o755)
        done = subprocess.run([script, name, operation, part, "-"], input=text.encode(), capture_output=True, timeout=60, check=False)
        self.assertEqual(done.stdout, b"")
        return done.returncode, done.stderr.decode("ascii")

    def tool(self, text):
        self.write("tools/epk-host", text).chmod(0o755)

    def test_with_the_tool(self):
        self.make()
        self.tool(f'#!/bin/sh\nexec {epk_host.TOOL} --root {self.root} "$@"\n')
        for text in domain(), domain() + "\n\n", domain().replace("urn:a", r"\n\c%s"):
            self.assertEqual(self.script(text), (0, ""))
        self.lacking()
        self.assertEqual(self.script(PLAIN), (0, ""))
        rc, err = self.script(domain())
        self.assertEqual((rc, "parameter epk" in err), (1, True))

    def test_not_asked(self):
        """libvirt kills a domain that runs if it fails then: nothing is run, neither the tool nor what the script has else."""
        for text in "exit 2", "exit 1", "kill -SEGV $$", "kill -KILL $$":
            self.tool(f"#!/bin/sh\ntouch {self.root}/called\n{text}\n")
            for program in "cat", "grep", "tr":
                self.write(f"broken/{program}", f"#!/bin/sh\ntouch {self.root}/called\n{text}\n").chmod(0o755)
            for operation, part in NOT_ASKED:
                self.assertEqual(self.script(domain(), operation, part, path=f"{self.root}/broken:"), (0, ""), (operation, part))
        self.assertFalse((self.root / "called").exists())

    def test_no_answer(self):
        """A tool that is missing, broken or something else is no leave for who uses EPK, and hinders nobody else."""
        (self.root / "tools").mkdir()
        for text, mode in ((None, 0), ("#!/bin/sh\n", 0o644), ("", 0o755), ("#!/bin/sh\nexit 0\n", 0o755), ("#!/bin/sh\ncat\n", 0o755),
                           ("#!/bin/sh\necho no\n", 0o755), ("#!/bin/sh\necho yes\nexit 1\n", 0o755), ("#!/bin/sh\nexit 2\n", 0o755),
                           ("#!/bin/sh\ncat >/dev/null\nkill -SEGV $$\n", 0o755), ("\x7fELF", 0o755)):
            if mode:
                self.write("tools/epk-host", text).chmod(mode)
            for operation in ASKED:
                rc, err = self.script(domain(), operation)
                self.assertEqual((rc, "epk-host" in err and "does not answer" in err), (1, True), text)
                self.assertEqual(self.script(PLAIN, operation)[0], 0, text)

    def test_cannot_look(self):
        """Only grep's 1 says that there is no mark."""
        self.tool("")
        for program, status in ("grep", 2), ("grep", 127), ("cat", 1), ("cat", 127):
            self.write(f"broken/{program}", f"#!/bin/sh\nexit {status}\n").chmod(0o755)
            self.assertEqual(self.script(PLAIN, path=f"{self.root}/broken:")[0], 1, (program, status))
            (self.root / "broken" / program).unlink()

    def test_hidden_mark(self):
        """A restore takes XML as somebody has written it; what libvirt has made of it is asked for again."""
        hidden = "<!DOCTYPE domain>" + domain().replace("urn:epk", "urn:&#101;pk")
        self.lacking()
        for tool in f'#!/bin/sh\nexec {epk_host.TOOL} --root {self.root} "$@"\n', "":
            self.tool(tool)
            self.assertEqual(self.script(hidden, "restore")[0], 0)
            self.assertEqual(self.script(domain(), "prepare")[0], 1)

    def test_name(self):
        self.tool("")
        for name in r"a\nb\c", "\x1b[31m\n", "%s", "-n":
            rc, err = self.script(domain(), name=name)
            self.assertEqual((rc, err.splitlines()[-1].split(": ")[0]), (1, name.replace("\x1b", "?").replace("\n", "?")))

    def test_installed(self):
        """The script calls the tool that was installed with it."""
        subprocess.run(["make", "-s", "-C", HOOK.parent, "install", f"DESTDIR={self.root}/d", "PREFIX=/opt/epk"], check=True)
        script = self.root / "d/etc/libvirt/hooks/qemu.d/epk"
        self.assertEqual(script.stat().st_mode & 0o777, 0o755)
        self.assertEqual(script.read_text(), HOOK.read_text().replace("\ntool=/usr/sbin/", "\ntool=/opt/epk/sbin/"))
        self.assertTrue((self.root / "d/opt/epk/sbin/epk-host").exists())


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
