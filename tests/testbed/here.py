# SPDX-License-Identifier: MIT
"""This very machine, whose KVM has EPK: in a root of its own, which goes with all that runs in it."""

import os
import pathlib
import signal
import subprocess

from machine import Machine

HERE = pathlib.Path(__file__).resolve().parent
# Of the host's, what tests and QEMU need.  The root is in a mount namespace of its own.
ENTER = """
set -e
mount --make-rprivate /
for folder in dev proc sys; do mount --rbind "/$folder" "root/$folder"; done
mount -t tmpfs tmp root/tmp
mkdir -p root/out
mount --bind . root/out
exec chroot root /bin/sh /epk/here
"""


class Here(Machine):
    """@work/root is the host's part, as images.sh leaves it."""

    def __init__(self, work):
        super().__init__(work)
        self.process = subprocess.Popen(["unshare", "--mount", "--pid", "--fork", "--kill-child",
                                         "sh", "-c", ENTER], cwd=work, stdin=subprocess.DEVNULL,
                                        stdout=open(work / "here.log", "w"),
                                        stderr=subprocess.STDOUT, start_new_session=True)

    def stop(self):
        if self.running():
            os.killpg(self.process.pid, signal.SIGKILL)
        super().stop()

    def standing(self):
        return (self.work / "here.log").read_text(errors="replace").splitlines()[-20:]
