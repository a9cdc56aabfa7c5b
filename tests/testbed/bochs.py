# SPDX-License-Identifier: MIT
"""A machine that Bochs emulates, started on a pseudo-terminal."""

import os
import pathlib
import pty
import re
import subprocess
import threading

from machine import Machine


class Bochs(Machine):
    def __init__(self, work, cpus):
        super().__init__(work)
        here = pathlib.Path(__file__).parent
        rc = (here / "bochs" / "bochsrc").read_text()
        rc = rc.replace("@CPUS@", str(cpus)).replace("@WORK@", str(work))
        (work / "bochsrc").write_text(rc)
        # Debian's Bochs has its debugger built in, which waits for a "continue".
        (work / "debugger").write_text("c\n")
        (work / "disk.img.lock").unlink(missing_ok=True)
        # Its text display wants a terminal; nobody looks at it.
        master, slave = pty.openpty()
        self.master = master
        env = dict(os.environ, TERM="xterm", LINES="25", COLUMNS="80",
                   LD_PRELOAD=str(here / "build" / "bochs_cpuid.so"))
        # It must not outlive a run that is killed.
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "bochs", "-q", "-f", work / "bochsrc", "-rc", work / "debugger"],
            stdin=slave, stdout=slave, stderr=slave, cwd=work, env=env,
            start_new_session=True)
        os.close(slave)
        threading.Thread(target=self._drain, daemon=True).start()

    def _drain(self):
        """Read what it prints; it shows its screen on a terminal that it names there."""
        text = b""
        try:
            while data := os.read(self.master, 65536):
                text = (text + data)[-1000:]
                screen = re.search(rb'connected to screen "(/dev/pts/\d+)"', text)
                if screen:
                    text = b""
                    threading.Thread(target=self._drain_screen, args=(screen[1],),
                                     daemon=True).start()
        except OSError:
            pass

    def _drain_screen(self, path):
        """Unread, this terminal is full after some minutes, and Bochs waits for ever."""
        try:
            screen = os.open(path, os.O_RDONLY | os.O_NOCTTY)
            while os.read(screen, 65536):
                pass
            os.close(screen)
        except OSError:
            pass

    def stop(self):
        super().stop()
        os.close(self.master)

    def panics(self):
        """What Bochs itself gave up on."""
        log = self.work / "bochs.log"
        if not log.exists():
            return []
        text = log.read_text(errors="replace").splitlines()
        return [line for line in text if ">>PANIC<<" in line]
