# SPDX-License-Identifier: MIT
# The front door; the build itself is meson's. BUILD=... puts it elsewhere.
BUILD ?= build
export BUILD

.PHONY: run demo test build setup fault soak programs oracle bare kernels bench clean

# A million keys in redis, whose memory is replaced under its clients. make demo: without redis.
run: setup build
	@scripts/run-redis $(BUILD)/memplug

demo: build
	$(BUILD)/memplug demo

test: setup
	@scripts/test

build: setup
	@test -e $(BUILD)/build.ninja || meson setup $(BUILD) . >/dev/null
	@ninja --quiet -C $(BUILD)

setup:
	@scripts/setup

# Every call that may fail, of every operation, fails.
fault: build
	$(BUILD)/tests/core/test_faults

# For as long as you like: make soak SECONDS=3600 SEEDS=1000. Each kind of stress takes the seconds;
# so do all programs together, that are sixteen with two malloc libraries each.
SECONDS ?= 600
SEEDS ?= 100
soak: build
	MEMPLUG_STRESS_SECONDS=$(SECONDS) MEMPLUG_SIM_SEEDS=$(SEEDS) \
	MEMPLUG_MEMMAP_SEEDS=$(SEEDS) MEMPLUG_RANDOM_SECONDS=$(SECONDS) \
	MEMPLUG_PROGRAM_SECONDS=$$(($(SECONDS) / 32)) \
	    meson test -C $(BUILD) --no-rebuild --suite soak --verbose -t 0

# What Debian has, under memplug run: the table of docs/programs.md, in about ten minutes.
programs: build
	@scripts/setup programs
	@scripts/try-programs $(BUILD)/memplug

# The scenarios that a kernel has taken, and how we differ.
ORACLE ?= ../shared/oracle
oracle: build
	@scripts/oracle $(ORACLE)

# The same for real: a kernel of ours in QEMU, whose devices come and go.
bare: setup build
	@scripts/bare

# The Linux host under Debian's 6.1 and 6.12, with a device-dax, in QEMU; some twenty minutes.
kernels: setup build
	@scripts/kernels

# Ours and what Debian packages, side by side, in about five minutes; bench/results has it then.
# BENCH=--quick is rough and takes two.
bench:
	@scripts/setup bench
	@test -e $(BUILD)-bench/build.ninja || \
	    meson setup $(BUILD)-bench . -Dbench=true -Dtests=false >/dev/null
	@ninja --quiet -C $(BUILD)-bench
	@bench/run --build $(BUILD)-bench $(BENCH)
	@bench/plot

clean:
	rm -rf $(BUILD) $(BUILD)-bench \
	    $(BUILD)-asan $(BUILD)-tsan $(BUILD)-clang $(BUILD)-arm64 $(BUILD)-riscv64
