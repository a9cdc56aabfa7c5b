#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""load.py [--long] BUILD-FOLDER

300 clients of an nginx whose TLS has domains, and of a stock one beside it, while both are reloaded
and lose workers every few seconds.  Whatever session stock nginx keeps is kept, no domain is left behind, and memory
does not grow.  The backend is "none": what is tried is the provider, not the processor.

Exit status: 0, or 1 if a check failed.  NGINX_BIN names nginx; wrk and ab (apache2-utils) make the load.
"""
import argparse
import itertools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

CLIENTS = 300
# What a worker has besides its sessions: the vault, and the certificate's key once it has signed with it.
OWN = (1, 2)
PATIENCE_S = 30


class Failures:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, what, ok):
        if ok:
            self.passed += 1
        else:
            self.failed += 1
            print(f"load: FAIL: {what}", flush=True)


FAILURES = Failures()
check = FAILURES.check


def say(text):
    print(f"load: {text}", flush=True)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def children_of(pid):
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def connections_of(pid, ports):
    """Of a process that does nothing meanwhile: clients that it has accepted."""
    files = Path(f"/proc/{pid}/fd")
    inodes = {found.group(1) for found in (re.fullmatch(r"socket:\[(\d+)\]", os.readlink(file)) for file in files.iterdir()) if found}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return sum(row[9] in inodes and row[3] != "0A" and int(row[1].split(":")[1], 16) in ports for row in rows)


def rss_kib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise RuntimeError(f"{pid} has no VmRSS")


class Nginx:
    """One server: a port at full speed, and one that takes its time."""

    def __init__(self, build, name, config, workers):
        self.build, self.name = build, name
        self.port, self.slow_port = free_port(), free_port()
        self.run = build / f"load-{name}"
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir()
        # "cut": sessions that ended with their worker.
        self.killed = self.reloaded = self.cut = 0
        self.environment = dict(os.environ)
        self.environment.pop("OPENSSL_CONF", None)
        if config:
            self.environment["OPENSSL_CONF"] = str(self.write_openssl(config))
            self.environment["LD_PRELOAD"] = str(build / "leak_agent.so")
            self.environment["EPK_AGENT_SOCKET"] = str(self.run / "agent.")
        self.conf = self.write_conf(workers)
        self.log = self.run / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [os.environ.get("NGINX_BIN", "/usr/sbin/nginx"), "-p", str(build), "-c", str(self.conf), "-e", "stderr"],
                env=self.environment, stderr=log)
        self.workers(workers)

    def write_openssl(self, backend):
        text = (self.build / "openssl.cnf").read_text()
        text = re.sub(r"/usr/lib/\S*/ossl-modules/epk.so", str(self.build / "epk.so"), text)
        text, n = re.subn(r"(?m)^backend = .*", f"backend = {backend}", text)
        assert n == 1
        path = self.run / "openssl.cnf"
        path.write_text(text)
        return path

    def write_conf(self, workers):
        text = (self.build / "nginx.conf").read_text()
        run = self.run.name
        text = text.replace("run/", f"{run}/").replace("127.0.0.1:4433", f"127.0.0.1:{self.port}")
        text = text.replace("worker_processes 1;", f"worker_processes {workers};")
        server = text[text.index("\tserver {"):text.rindex("}")]
        slow = server.replace(str(self.port), str(self.slow_port)).replace("root docs;", "root docs;\n\t\tlimit_rate 256k;")
        text = text[:text.rindex("}")] + slow + "}\n"
        path = self.build / f"load-{self.name}.conf"
        path.write_text(text)
        return path

    def workers(self, number):
        """When there are so many and they answer."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            pids = children_of(self.process.pid)
            if len(pids) >= number and self.answers():
                return pids
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"{self.name} does not start: " + self.log.read_text()[-2000:])

    def answers(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1):
                return True
        except OSError:
            return False

    def reload(self):
        self.reloaded += 1
        self.process.send_signal(signal.SIGHUP)

    def kill_worker(self):
        pids = children_of(self.process.pid)
        if pids:
            self.killed += 1
            os.kill(pids[-1], signal.SIGSTOP)
            while Path(f"/proc/{pids[-1]}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "TtZX":
                time.sleep(0.001)
            self.cut += connections_of(pids[-1], (self.port, self.slow_port))
            os.kill(pids[-1], signal.SIGKILL)

    def replace_workers(self):
        old = children_of(self.process.pid)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        end = time.monotonic() + PATIENCE_S
        while set(old) & set(self.workers(1)) and time.monotonic() < end:
            time.sleep(0.05)
        self.workers(len(old))

    def ask(self, pid, command):
        said = subprocess.run([self.build / "worker_ask", self.run / f"agent.{pid}", command], capture_output=True,
                              text=True, check=False, timeout=PATIENCE_S)
        return dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)

    def complaints(self):
        """What is in the log, but for what was done to it."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines()
                 if re.search(r"\[(warn|error|crit|alert|emerg)\]", line)]
        return [line for line in lines if "exited on signal 9" not in line]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        check(f"{self.name} ended with status {self.process.returncode}", self.process.returncode == 0)

    def clean(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.run, ignore_errors=True)
        self.conf.unlink(missing_ok=True)


def start(*command):
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def fetch(server, port, *files, rounds=1):
    return start(server.build / "tls_fetch", "--connections", CLIENTS, "--port", port, "--rounds", rounds,
                 "--dir", server.build / "docs", "--ca", server.build / "cert.pem", "--timeout", 120, *files)


def number(pattern, text):
    found = re.search(pattern, text)
    return int(found.group(1)) if found else 0


def both(servers, what):
    for server in servers:
        what(server)


def downloads_survive_reloads(servers):
    """Each client is in the middle of a file of 1 MiB, which takes four seconds."""
    fetches = [fetch(server, server.slow_port, "1024.bin") for server in servers]
    for _ in range(3):
        time.sleep(1)
        both(servers, Nginx.reload)
    for server, process in zip(servers, fetches):
        said = process.communicate()[0]
        totals = said.splitlines()[-1] if said else ""
        say(f"{server.name}: three reloads during downloads: {totals}")
        # Who is through with it is hung up on, and said so.
        check(f"{server.name} kept all downloads: {said}",
              re.search(rf"requests {CLIENTS}  bytes {CLIENTS << 20}  mismatches 0 ", totals) and
              all(line.endswith("connection lost while idle") for line in said.splitlines()[:-1]))


def by_chance(stock):
    """Who asks just as a worker that is reloaded closes the connection loses it, with any nginx: at worst all at once.

    How many differs from one reload to the next by all of them at most, and so for n by the root of n times that."""
    return max(0, stock["lost"] - stock["cut"]) + int(CLIENTS * stock["reloaded"]**0.5)


class NoReport(Exception):
    """A client has ended before its time, and says nothing of the server."""


def storm_that_reports(servers, seconds, *events):
    """As often as it takes for all clients to report: ab gives up where too much fails at once, with any nginx."""
    for tries in range(3):
        try:
            return storm_once(servers, seconds, *events)
        except NoReport as what:
            say(f"again, {tries + 1} of 3: {what}")
    check("ab reports", False)
    return []


def storm(servers, seconds, *events, times=1):
    """In a longer one ab gives up more often, as a client of its that is cut off in a handshake is lost to it."""
    totals = [dict.fromkeys(("lost", "cut", "reloaded"), 0) for _ in servers]
    for _ in range(times):
        for total, result in zip(totals, storm_that_reports(servers, seconds, *events)):
            for what in total:
                total[what] += result[what]
        both(servers, lambda server: server.workers(2))
    stock, ours = totals
    check(f"no session is lost but with its worker: stock {stock}, ours {ours}", ours["lost"] <= ours["cut"] + by_chance(stock))


def storm_once(servers, seconds, *events):
    """Keep-alive and new connections, and one of the events every two seconds."""
    end = time.monotonic() + seconds
    for server in servers:
        server.killed = server.reloaded = server.cut = 0
    loads = [(start("wrk", "-t", 1, "-c", CLIENTS, "-d", f"{seconds}s", "--timeout", "10s",
                    f"https://127.0.0.1:{server.port}/1.bin"),
              start("ab", "-q", "-r", "-c", 20, "-t", seconds, "-n", 10000000,
                    f"https://127.0.0.1:{server.port}/4.bin")) for server in servers]
    for event in itertools.cycle(events):
        time.sleep(2)
        both(servers, event)
        if time.monotonic() > end - 3:
            break
    results = []
    said = [(wrk.communicate()[0], ab.communicate()[0]) for wrk, ab in loads]
    for server, (_, new), (_, ab) in zip(servers, said, loads):
        if "Complete requests:" not in new:
            raise NoReport(f"{server.name}: ab ended with {ab.returncode}: {new.strip()[-200:]}")
    for server, (kept, new) in zip(servers, said):
        errors = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", kept))
        # ab counts one in several ways.
        failed = max((int(n) for n in re.findall(r"(?:Connect|Receive|Length|Exceptions): (\d+)", new)), default=0)
        wrong = number(r"Non-2xx or 3xx responses: (\d+)", kept) + number(r"Non-2xx responses:\s+(\d+)", new)
        result = {"kept": number(r"(\d+) requests in", kept), "new": number(r"Complete requests:\s+(\d+)", new),
                  "lost": errors + failed, "wrong": wrong, "cut": server.cut, "reloaded": server.reloaded}
        say(f"{server.name}: {server.killed} workers killed: {result}")
        results.append(result)
    # How many is chance: after each event all clients come anew, and each pair waits for its turn.
    check("requests are answered all the while",
          min(server["kept"] for server in results) > 20 and min(server["new"] for server in results) > 20)
    check("no answer is another one's", results[1]["wrong"] == 0)
    return results


def all_is_well(servers):
    """Every byte, of each client, at once."""
    for server in servers:
        process = fetch(server, server.port, "1.bin", "16.bin", "64.bin")
        said = process.communicate()[0]
        check(f"{server.name} serves {CLIENTS} clients afterwards: {said}", process.returncode == 0)


def s_client(server, *more):
    said = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", server.build / "cert.pem",
                           "-verify_return_error", "-ign_eof", *more], input="GET /1.bin HTTP/1.0\r\n\r\n", capture_output=True,
                          check=False, timeout=PATIENCE_S, encoding="latin-1")
    return said.stdout


def tickets_survive_workers(servers):
    """A ticket that a worker has given is good for the next one."""
    for server in servers:
        for version in "-tls1_2", "-tls1_3":
            ticket = server.run / "ticket"
            first = s_client(server, version, "-sess_out", ticket)
            check(f"{server.name}: a session {version}", "\nNew, TLS" in first and "200 OK" in first and ticket.exists())
            server.replace_workers()
            again = s_client(server, version, "-sess_in", ticket)
            check(f"{server.name}: a ticket survives workers {version}", "\nReused, TLS" in again and "200 OK" in again)
            ticket.unlink()


def nothing_is_left(server):
    """Of all sessions that ended, in each worker."""
    workers = children_of(server.process.pid)
    check("there are workers to be asked", bool(workers))
    for pid in workers:
        end = time.monotonic() + 10
        while True:
            keyed = server.ask(pid, "keyed").get("keyed")
            if keyed in map(str, OWN) or time.monotonic() > end:
                break
            time.sleep(0.1)
        domains = int(server.ask(pid, "counts").get("domains", -1))
        check(f"no key is left in worker {pid}: {keyed}", keyed in map(str, OWN))
        check(f"no more domains than sessions at a time: {domains}", 0 < domains <= CLIENTS + 20 + max(OWN) + 2)


def memory_is_flat(build, first, last):
    """One worker each, new sessions alone."""
    servers = [Nginx(build, "stock", None, 1), Nginx(build, "ours", "none", 1)]
    try:
        sizes = []
        for sessions in first, last - first:
            loads = [start("ab", "-q", "-c", 50, "-n", sessions, f"https://127.0.0.1:{server.port}/1.bin")
                     for server in servers]
            for server, load in zip(servers, loads):
                said = load.communicate()[0]
                check(f"{server.name}: {sessions} sessions", number(r"Complete requests:\s+(\d+)", said) == sessions and
                      number(r"Failed requests:\s+(\d+)", said) == 0)
            sizes.append([rss_kib(children_of(server.process.pid)[0]) for server in servers])
        for i, server in enumerate(servers):
            say(f"{server.name}: a worker has {sizes[0][i]} KiB after {first} sessions, {sizes[1][i]} after {last}")
        check("memory does not grow", sizes[1][1] - sizes[0][1] <= max(0, sizes[1][0] - sizes[0][0]) + 512)
        nothing_is_left(servers[1])
        both(servers, Nginx.stop)
        check("nothing is logged", servers[1].complaints() == [])
    finally:
        both(servers, Nginx.clean)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--long", action="store_true", help="100,000 sessions, and two minutes of disturbances")
    parser.add_argument("build", type=Path)
    args = parser.parse_args()
    build = args.build.resolve()
    servers = [Nginx(build, "stock", None, 2), Nginx(build, "ours", "none", 2)]
    try:
        downloads_survive_reloads(servers)
        storm(servers, 30 if args.long else 7, Nginx.kill_worker)
        storm(servers, 30 if args.long else 9, Nginx.kill_worker, Nginx.reload, times=4 if args.long else 1)
        all_is_well(servers)
        tickets_survive_workers(servers)
        nothing_is_left(servers[1])
        both(servers, Nginx.stop)
        for line in servers[1].complaints()[:5]:
            check(f"logged: {line}", False)
    finally:
        both(servers, Nginx.clean)
    memory_is_flat(build, *((20000, 100000) if args.long else (1500, 4000)))
    ok = FAILURES.failed == 0 and FAILURES.passed > 0
    say(f"{'PASS' if ok else 'FAIL'}: {FAILURES.passed} checks passed, {FAILURES.failed} failed")
    return not ok


if __name__ == "__main__":
    sys.exit(main())
