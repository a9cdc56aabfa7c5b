# SPDX-License-Identifier: MIT
# make help says what there is.
RUN := tests/testbed/run.py
RUN_CPUS := $(addprefix --cpus ,$(CPUS))

help:
	@sed -n 's/^## \{0,1\}//p' Makefile

## To see it
##   demo            NGINX in an emulated guest, each session's key in a domain; the attack
##   run             a program of yours in the emulated guest: PROGRAM=./x ARGS= FILES= BACKEND= CPUS= ALONE=1
##   shell           a console in a guest with the library and Python; FILES=
##
## To test a change
##   check-fast      five minutes: the native tests that are not slow, and the core in emulators
##   check-unit      the library's unit tests, on this machine
##   check-alone     tests that need one EPT, in QEMU's own emulation: a few minutes
##   check-guest     the emulated tests: TESTS="name name" CPUS="1 2" choose
##   check-hygiene   the KVM series and the sources: applies, builds, checkpatch, layers, linters
##   check           all tests: unit tests, hygiene, emulated tests, some on Debian's kernels
##
## More tests, which "check" leaves out, but for check-kernels
##   check-kernels   cores of the tests on Debian's own kernels, host and guests, and a host of 6.12; the wide guest; suspend
##   check-builds    the library by each compiler at each level, by sanitizers, valgrind, musl; long
##   check-debug     fuzzers, failing allocations and the guest's tests, on debug kernels; long
##   check-selftests Linux's own KVM selftests with stock KVM and with the series
##   check-mutations defects put into KVM and into the module, each of which has to make a test fail
##   check-load      300 clients of nginx with reloads and workers that die, 100,000 sessions, beside a stock one; long
##   check-libvirt   the domains of qemu-configs/ by Debian's libvirt, in QEMU's own emulation and in the emulator
##   check-install   does what docs/install.md says in a fresh Debian 12 that boots in QEMU; half an hour
##   check-deb       makes the Debian packages and installs them in a fresh Debian 12 of their own
##   check-hw        tests and figures on an Intel host with EPK, into OUT (epk-hardware.txt)
##   firmware-matrix where windows find room on what real firmware leaves: docs/firmware.md; long
##
## To measure
##   bench           the evaluation: all figures, in emulated instructions, into bench/results; TESTS=
##   bench-report    docs/performance.md and its plots from these
##   bench-compare   the evaluation anew, against bench/results
##   bench-native    cycles of what this machine can measure, into OUT (bench/build/native.json)
##   bench-flat      whether a switch stays the same with two CPUs, too, and threads do not wait for each other
##   bench-lib       what the library costs on this machine, against its baselines
##   bench-dirty     what it costs on this machine to learn which pages were written to
##
## To build and install
##   packages        what Debian packages the rest needs
##   build           library, tests, guest module, NGINX case
##   kernel          the test kernel; prints where it is
##   deb             Debian packages of library and modules, into OUT (build/debs), past lintian
##   kernel-deb      Debian packages of a whole host kernel, into OUT (build/kernel-debs); long
##   install         library (PREFIX, DESTDIR)
##   clean           what was built in the tree; the cache stays (~/.cache/epk or EPK_CACHE)

packages:
	@tests/testbed/packages.sh

kernel: packages
	@tests/testbed/kernel.sh

build: packages
	@kernel=$$(tests/testbed/kernel.sh) && tests/testbed/build.sh $$kernel $$kernel >/dev/null

# First what all of it will be.
check: packages
	@$(RUN) --plan
	@echo "then, on Debian's own kernels:"
	@$(MAKE) -s check-kernels PLAN=--plan HOSTS=stock GUESTS="stock backports"
	@$(RUN)
	@$(MAKE) -s check-kernels HOSTS=stock GUESTS="stock backports"

check-fast: packages
	@$(RUN) $(PLAN) --fast

check-guest: packages
	@$(RUN) --emulated $(RUN_CPUS) $(TESTS)

check-libvirt: packages
	@$(RUN) --native hygiene-domains hygiene-cloud-init cloud-init-root libvirt-each libvirt-hook libvirt-apparmor
	@$(RUN) --emulated --cpus 1 libvirt-disk libvirt-demo libvirt-moved libvirt-hooked
	@$(RUN) --emulated --cpus 1 --guest-kernel cloud libvirt-kernel

check-install: packages
	@tests/install/follow.py

check-alone: packages
	@$(RUN) --alone $(RUN_CPUS) $(TESTS)

# The host's debug kernel has KVM's tests and an ordinary guest; then the guest has one.
check-debug: packages
	@$(RUN) --emulated $(RUN_CPUS) --kernel debug $(or $(TESTS),debug kvm fuzz kmod hypercall)
	@$(RUN) --emulated $(RUN_CPUS) --guest-kernel debug $(or $(TESTS),kmod hypercall lib unit guest-fuzz guest-fuzz-long)

# Not in "check": booting one takes 1.1 emulated seconds, ten times as long as the test kernel.
check-kernels: HOSTS ?= stock 6.12
check-kernels: GUESTS ?= stock backports cloud
check-kernels: packages
	@$(if $(TESTS),:,$(RUN) $(PLAN) --alone --cpus 1 --guest-kernel backports) & alone=$$!; \
	$(RUN) $(PLAN) --emulated --cpus 1 kmod-refused && \
	$(if $(TESTS),:,$(foreach host,$(HOSTS),$(RUN) $(PLAN) --emulated --cpus 1 --kernel $(host) &&) :); \
	rest=$$?; wait $$alone && exit $$rest
	@$(RUN) $(PLAN) --emulated --cpus 1 $(addprefix --guest-kernel ,$(GUESTS)) $(TESTS)

check-unit:
	@tests/testbed/packages.sh tests/unit/packages.list
	@$(RUN) --native unit lib-check

check-builds: packages
	@$(RUN) --native --show lib-builds-all

check-hygiene: packages
	@$(RUN) --native hygiene hygiene-series-backports

check-selftests: packages
	@$(RUN) --emulated --show selftests-all selftests-two selftests-broken

check-load: packages
	@$(RUN) --native --show nginx-load

check-mutations: packages
	@$(RUN) --show kvm-mutations kmod-choose-defects kmod-mutations-alone kmod-mutations-epts

check-hw: packages
	@tests/hardware/check.sh $(OUT)

firmware-matrix: packages
	@tests/firmware/matrix.py --keep tests/firmware/build/layouts --table tests/firmware/build/table.md

# FILES and PROGRAM, which are in the environment wherever they were set, may have quotes and patterns.
run: packages
	@tests/testbed/program.py $(addprefix --backend ,$(BACKEND)) $(addprefix --cpus ,$(CPUS)) $(if $(filter-out 0 no,$(ALONE)),--alone) \
		--files "$$FILES" "$$PROGRAM" $(ARGS)

shell: packages
	@tests/testbed/program.py $(addprefix --cpus ,$(CPUS)) --files "$$FILES" --shell

demo: packages
	@$(RUN) --emulated --cpus 1 --show nginx-demo

bench: packages
	@bench/evaluate.py $(TESTS)

bench-report: packages
	@bench/report.py

bench-native: packages
	@bench/evaluate.py --native $(or $(OUT),bench/build/native.json)

bench-compare: packages
	@bench/evaluate.py --compare $(TESTS)

bench-flat: packages
	@$(RUN) --emulated --cpus 2 --show bench-flat bench-independent

bench-lib:
	@$(MAKE) -s -C guest-lib
	@$(MAKE) -s -C bench lib

bench-dirty:
	@$(MAKE) -s -C guest-lib
	@$(MAKE) -s -C bench dirty

kernel-deb:
	@kvm-patches/kernel-deb.sh $(OUT)

deb:
	@guest-lib/packaging/build-deb.sh $(or $(OUT),build/debs)

check-deb:
	@guest-lib/packaging/check-deb.sh

install:
	$(MAKE) -C guest-lib install

clean:
	$(MAKE) -C guest-lib clean
	$(MAKE) -C guest-kmod clean
	$(MAKE) -C kvm-patches/host clean
	$(MAKE) -C examples/nginx clean
	$(MAKE) -C bench clean
	$(MAKE) -C tests/guest clean
	$(MAKE) -C tests/unit clean
	$(MAKE) -C tests/docs clean
	$(MAKE) -C tests/debug clean
	$(MAKE) -C tests/firmware clean
	$(MAKE) -C tests/libvirt clean
	$(MAKE) -C tests/kvm clean
	$(MAKE) -C tests/testbed clean

.PHONY: help packages kernel build run shell check check-fast check-load check-hw check-alone check-install check-libvirt check-debug check-guest check-kernels check-unit check-builds check-hygiene check-selftests demo bench bench-report bench-native bench-compare bench-flat bench-lib bench-dirty kernel-deb deb check-deb install clean firmware-matrix
