# SPDX-License-Identifier: MIT
"""A machine that runs tests and writes to its serial ports, each of which is a file."""

import signal

PORTS = ("host.log", "host.out", "guest.log", "guest.out")


class Machine:
    """What is started by which program is up to the subclass, which sets self.process."""

    def __init__(self, work):
        self.work = work
        for port in PORTS:
            (work / port).write_bytes(b"")
        self.files = {port: open(work / port, "rb") for port in PORTS}
        self.partial = dict.fromkeys(PORTS, b"")

    def new_lines(self, port):
        """Complete lines that appeared on a port since the last call."""
        data = self.partial[port] + self.files[port].read()
        *complete, self.partial[port] = data.split(b"\n")
        return [line.rstrip(b"\r").decode(errors="replace") for line in complete]

    def running(self):
        return self.process.poll() is None

    def stop(self):
        # Bochs ignores SIGTERM while it emulates.
        if self.running():
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        for file in self.files.values():
            file.close()

    def panics(self):
        """What the emulator itself gave up on."""
        return []

    def stuck(self):
        """Whether it hangs by a known fault of the emulator's own."""
        return False

    def standing(self):
        """Where its CPUs stand, of a machine that hangs."""
        return []
