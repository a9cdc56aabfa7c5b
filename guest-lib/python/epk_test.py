#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The package epk, under the backend that EPK_BACKEND names."""

import array
import copy
import errno
import gc
import os
import signal
import sys
import threading
import time
import unittest
import unittest.mock

sys.path.insert(0, os.environ.get("EPK_PYTHON") or os.path.dirname(os.path.abspath(__file__)))

import epk  # noqa: E402

BACKEND = os.environ.get("EPK_BACKEND", "none")


class Case(unittest.TestCase):
    def setUp(self):
        self.before = epk.counts()["domains"]

    def tearDown(self):
        gc.collect()
        self.assertEqual(epk.counts()["domains"], self.before)
        self.assertEqual(epk.held(), {})

    def fails(self, number, call, *args):
        with self.assertRaises(epk.Error) as caught:
            call(*args)
        self.assertEqual(caught.exception.errno, number)
        self.assertTrue(caught.exception.strerror)
        return caught.exception.strerror

    def child(self, body):
        """What a forked child, in which the body runs, ends with: as waitpid() tells"""
        pid = os.fork()
        if not pid:
            os.close(2)
            try:
                body()
            except BaseException:
                os._exit(99)
            os._exit(0)
        return os.waitpid(pid, 0)[1]


class Domains(Case):
    def test_come_and_go(self):
        domain = epk.Domain()
        self.assertGreater(domain.id, 0)
        self.assertEqual(epk.counts()["domains"], self.before + 1)
        beside = epk.Domain(beside=domain)
        many = epk.alloc(5)
        self.assertEqual(len({d.id for d in many} | {domain.id, beside.id}), 7)
        self.assertEqual(len(domain.place), 2)
        domain.free()
        self.assertEqual(domain.id, 0)
        self.fails(errno.EINVAL, domain.free)
        self.fails(errno.EINVAL, domain.hold().__enter__)
        with epk.Domain() as short:
            self.assertGreater(short.id, 0)
        self.assertEqual(short.id, 0)
        del many[2:], beside

    def test_numbers_without_sense(self):
        for number in (0, -1, 1 << 31, (1 << 32) + 1):
            self.fails(errno.EINVAL, epk.alloc, number)
        self.fails(errno.EALREADY, epk.init)
        self.fails(errno.EALREADY, epk.init, BACKEND)

    def test_held_is_not_freed(self):
        domain = epk.Domain()
        with domain.hold():
            self.fails(errno.EBUSY, domain.free)
            self.assertGreater(domain.id, 0)

    def test_library(self):
        self.assertEqual(epk.backend(), BACKEND)
        self.assertEqual(epk.version()[0], 1)


class Holding(Case):
    def test_nests(self):
        domain, buffer = epk.Domain(), None
        buffer = domain.buffer(8)
        with domain.hold(write=False) as same:
            self.assertIs(same, domain)
            self.assertEqual(epk.held(), {domain.id: False})
            with domain.hold():
                self.assertEqual(epk.held(), {domain.id: True})
                with domain.hold(write=False):
                    buffer.write(b"x")
                buffer.write(b"y")
            self.assertEqual(epk.held(), {domain.id: False})
            self.fails(errno.EACCES, buffer.write, b"z")
            self.assertEqual(buffer[0], ord("y"))
        self.assertEqual(epk.held(), {})

    def test_ends_with_an_exception(self):
        domain = epk.Domain()
        with self.assertRaises(KeyError):
            with domain.hold():
                raise KeyError
        self.assertEqual(epk.held(), {})

    def test_used_again(self):
        domain = epk.Domain()
        hold = domain.hold()
        for _ in range(3):
            with hold, hold:
                self.assertEqual(epk.held(), {domain.id: True})
            self.assertEqual(epk.held(), {})

    def test_an_interrupt_leaves_nothing_open(self):
        domain = epk.Domain()
        begin = epk._lib.domain_begin

        def interrupted(*args):
            begin(*args)
            raise KeyboardInterrupt

        with unittest.mock.patch.object(epk._lib, "domain_begin", interrupted):
            with self.assertRaises(KeyboardInterrupt):
                domain.hold().__enter__()
        self.assertEqual(epk.held(), {})

    def test_a_child_leaves_the_block(self):
        with epk.Domain() as domain, domain.hold():
            pid = os.fork()
            if not pid:
                try:
                    with domain, domain.hold():
                        pass
                except epk.Error:
                    os._exit(1)
                os._exit(0)
            self.assertEqual(os.waitpid(pid, 0)[1], 256)
        with epk.Domain() as domain:
            with domain.hold():
                pid = os.fork()
                in_child = not pid
            if in_child:
                os._exit(0)
            self.assertEqual(os.waitpid(pid, 0)[1], 0)

    def test_ends_where_it_began(self):
        domain, said = epk.Domain(), []

        def generator():
            with domain.hold():
                yield

        def other(end):
            with domain.hold(write=False):
                try:
                    end()
                except RuntimeError as error:
                    said.append(str(error))
                said.append(epk.held())

        def elsewhere(end):
            thread = threading.Thread(target=other, args=(end,))
            thread.start()
            thread.join()

        held = domain.hold()
        with held:
            elsewhere(lambda: held.__exit__(None, None, None))
            self.assertEqual(epk.held(), {domain.id: True})
        self.assertEqual(epk.held(), {})
        suspended = generator()
        next(suspended)
        # What the documentation warns of.
        self.assertEqual(epk.held(), {domain.id: True})
        elsewhere(suspended.close)
        self.assertEqual(len(said), 4)
        for i in (0, 2):
            self.assertIn("another thread holds", said[i])
            self.assertEqual(said[i + 1], {domain.id: False})
        self.assertEqual(epk.held(), {domain.id: True})
        epk._check(epk._lib.domain_end(domain.id))

    def test_is_the_threads_own(self):
        domain, seen = epk.Domain(), []
        buffer = domain.buffer(10)

        def other():
            seen.append(epk.held())
            try:
                buffer.read()
            except epk.Error as error:
                seen.append(error.errno)

        with domain.hold():
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()
        self.assertEqual(seen, [{}, errno.EACCES])


class Buffers(Case):
    def setUp(self):
        super().setUp()
        self.domain = epk.Domain()
        self.buffer = self.domain.buffer(100)

    def tearDown(self):
        del self.buffer, self.domain
        super().tearDown()

    def test_holds_bytes(self):
        self.assertEqual(epk.domain_at(self.buffer.address), self.domain.id)
        self.assertEqual(len(self.buffer), 100)
        with self.domain.hold():
            self.assertEqual(self.buffer.read(), bytes(100))
            for data in (b"bytes", bytearray(b"array"), memoryview(b"views"), memoryview(bytearray(b"other"))):
                self.assertEqual(self.buffer.write(data, 7), 5)
                self.assertEqual(self.buffer.read(6, 7), b"\0" + bytes(data) + b"\0")
            self.assertEqual(self.buffer.write(b""), 0)
            self.buffer[0] = 65
            self.buffer[-1] = 66
            self.buffer[1:3] = b"cd"
            self.assertEqual(self.buffer[0:3], b"Acd")
            self.assertEqual((self.buffer[99], self.buffer[-100], self.buffer[5:5]), (66, 65, b""))
            self.assertEqual(bytes(self.buffer), self.buffer.read())
            self.buffer.wipe()
            self.assertEqual(self.buffer.read(), bytes(100))

    def test_bounds(self):
        with self.domain.hold():
            for offset, size in ((0, 101), (100, 1), (-1, 1), (0, -1), (1 << 62, 1 << 62)):
                with self.assertRaises(IndexError):
                    self.buffer.read(offset, size)
            for index in (100, -101):
                with self.assertRaises(IndexError):
                    self.buffer[index]
                with self.assertRaises(IndexError):
                    self.buffer[index] = 1
            with self.assertRaises(IndexError):
                self.buffer.write(b"xx", 99)
            for data in (b"x", b"xxx"):
                with self.assertRaises(ValueError):
                    self.buffer[1:3] = data
            with self.assertRaises(ValueError):
                self.buffer[0:10:2]
            with self.assertRaises(ValueError):
                self.buffer[0] = 256
            for index, data in ((0, b"x"), (0, "x"), (slice(0, 1), 1), (slice(0, 1), "x")):
                with self.assertRaises(TypeError):
                    self.buffer[index] = data
            self.assertEqual(self.buffer.read(), bytes(100))
        for size in (0, -1, (1 << 64) + 16, 1 << 63):
            self.fails(errno.EINVAL, self.domain.buffer, size)
        with self.domain.hold(), self.assertRaises(ValueError):
            self.buffer[0:2] = memoryview(array.array("I", [1, 2]))

    def test_is_not_freed_in_use(self):
        reader, writer = os.pipe()
        read = []

        def other():
            with self.domain.hold():
                read.append(self.buffer.read_from(reader))

        thread = threading.Thread(target=other)
        thread.start()
        while not self.buffer._users:
            time.sleep(0.001)
        for free in (self.buffer.free, self.domain.free):
            with self.assertRaises(BufferError):
                free()
        os.write(writer, b"late")
        thread.join()
        self.assertEqual((read, self.buffer._users), ([4], 0))
        with self.domain.hold():
            view = self.buffer.view()
            self.assertEqual(bytes(view[:4]), b"late")
            for free in (self.buffer.free, self.domain.free):
                with self.assertRaises(BufferError):
                    free()
            # A part of it is enough.
            part = view[1:3]
            del view
            with self.assertRaises(BufferError):
                self.buffer.free()
            del part
        self.buffer.free()
        os.close(reader)
        os.close(writer)

    def test_lives_as_long_as_its_view(self):
        domain = epk.Domain()
        with domain.hold():
            view = domain.buffer(10).view()
            view[0] = 7
        del domain
        gc.collect()
        self.assertEqual(epk.counts()["domains"], self.before + 2)
        del view

    def test_cannot_be_copied(self):
        for what in (self.buffer, self.domain):
            for how in (copy.copy, copy.deepcopy):
                with self.assertRaises(TypeError):
                    how(what)

    def test_is_refused_and_no_fault(self):
        reader, writer = os.pipe()
        os.write(writer, b"data")
        for call, *args in ((self.buffer.read,), (self.buffer.write, b"x"), (self.buffer.view,), (self.buffer.wipe,),
                            (self.buffer.read_from, reader), (self.buffer.write_to, writer), (self.buffer.__iter__,)):
            self.assertIn("does not hold", self.fails(errno.EACCES, call, *args))
        with self.domain.hold(write=False):
            for call, *args in ((self.buffer.write, b"x"), (self.buffer.view,), (self.buffer.wipe,),
                                (self.buffer.read_from, reader)):
                self.assertIn("to be read only", self.fails(errno.EACCES, call, *args))
            self.assertEqual(self.buffer.view(write=False)[0], 0)
            with self.assertRaises(TypeError):
                self.buffer.view(write=False)[0] = 1
        os.close(reader)
        os.close(writer)

    def test_files(self):
        reader, writer = os.pipe()
        os.write(writer, b"secret")
        with self.domain.hold():
            self.assertEqual(self.buffer.read_from(reader, 10), 6)
            self.assertEqual(self.buffer[9:17], b"\0secret\0")
            self.assertEqual(self.buffer.write_to(writer, 10, 6), 6)
        self.assertEqual(os.read(reader, 100), b"secret")
        os.close(reader)
        os.close(writer)

    def test_view(self):
        with self.domain.hold():
            view = self.buffer.view()
            view[3:6] = b"abc"
            self.assertEqual(self.buffer[2:7], b"\0abc\0")
        if BACKEND != "none":
            self.assertEqual(self.child(lambda: None), 0)
            with self.domain.hold():
                view = self.buffer.view()
            pid = os.fork()
            if not pid:
                # The memory is not there.
                view[0]
                os._exit(0)
            self.assertEqual(os.waitpid(pid, 0)[1] & 127, signal.SIGSEGV)

    def test_freed(self):
        other = self.domain.buffer(10)
        other.free()
        self.assertEqual(other.address, 0)
        with self.domain.hold():
            self.fails(errno.ENOENT, other.read)
        gone = epk.Domain()
        buffer = gone.buffer(10)
        gone.free()
        self.fails(errno.ENOENT, buffer.read)
        self.fails(errno.EINVAL, gone.buffer, 10)

    def test_fork_while_another_counts(self):
        has, done = threading.Event(), threading.Event()

        def other():
            with epk._counting:
                has.set()
                done.wait()

        def body():
            signal.alarm(60)
            with epk.Domain() as own:
                own.buffer(10).free()

        thread = threading.Thread(target=other)
        thread.start()
        has.wait()
        status = self.child(body)
        done.set()
        thread.join()
        self.assertEqual(status, 0)

    def test_fork(self):
        def body():
            for call in (self.buffer.read, self.domain.hold().__enter__):
                try:
                    call()
                except epk.Error as error:
                    if error.errno == errno.EPERM:
                        continue
                raise AssertionError
            own = epk.Domain()
            with own.hold():
                own.buffer(10).write(b"own")

        with self.domain.hold():
            self.buffer.write(b"parent")
        self.assertEqual(self.child(body), 0)
        with self.domain.hold():
            self.assertEqual(self.buffer[0:6], b"parent")


class First(unittest.TestCase):
    """In processes in which nothing has been done yet"""

    def run_first(self, text, status=0):
        code = f"import sys; sys.path.insert(0, {sys.path[0]!r}); import epk, errno\n" + text
        self.assertEqual(os.spawnl(os.P_WAIT, sys.executable, sys.executable, "-c", code), status)

    def test_init(self):
        self.run_first(f"epk.init({BACKEND!r})\nassert epk.backend() == {BACKEND!r}")
        self.run_first("assert epk.backend() is None\nassert epk.held() == {}")
        self.run_first("try:\n epk.init('nonsense')\nexcept epk.Error as e:\n"
                       " sys.exit(e.errno == errno.EINVAL and 'the backends are' in e.strerror and 7)", 7)

    def test_a_child_leaves_all_blocks(self):
        self.run_first("import os\nwith epk.Domain() as d, d.hold():\n pid = os.fork()\n if not pid: sys.exit(0)\n"
                       " status = os.waitpid(pid, 0)[1]\nsys.exit(status != 0)")

    @unittest.skipIf(BACKEND == "none", "it protects nothing")
    def test_protects(self):
        self.run_first("b = epk.Domain().buffer(10)\nimport ctypes\nctypes.string_at(b.address, 1)", -signal.SIGSEGV)


if __name__ == "__main__":
    unittest.main()
