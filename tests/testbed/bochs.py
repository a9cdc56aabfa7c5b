# SPDX-License-Identifier: MIT
"""A machine that Bochs emulates."""

import pathlib
import subprocess

from machine import Machine

HERE = pathlib.Path(__file__).resolve().parent


def build():
    """The program, which is built if it is not there."""
    return subprocess.run([HERE / "bochs.sh"], check=True, text=True, stdout=subprocess.PIPE,
                          stdin=subprocess.DEVNULL).stdout.strip()


class Bochs(Machine):
    def __init__(self, work, cpus):
        super().__init__(work)
        rc = (HERE / "bochs" / "bochsrc").read_text()
        rc = rc.replace("@CPUS@", str(cpus)).replace("@WORK@", str(work))
        (work / "bochsrc").write_text(rc)
        (work / "disk.img.lock").unlink(missing_ok=True)
        # It must not outlive a run that is killed.
        with open(work / "bochs.out", "wb") as out:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", build(), "-q", "-f", work / "bochsrc"],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=work, start_new_session=True)

    def panics(self):
        """What Bochs itself gave up on."""
        log = self.work / "bochs.log"
        if not log.exists():
            return []
        text = log.read_text(errors="replace").splitlines()
        return [line for line in text if ">>PANIC<<" in line]
