# `make` lists the targets. Those that make containers need root, and say so.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
.SILENT:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PREFIX ?= /usr/local
DESTDIR ?=
TARGET := $(shell uname -m)-unknown-linux-musl
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
BINARY := $(TARGET_DIR)/$(TARGET)/release/rrun
# What `rrun --version` calls its commit; empty outside of a checkout.
export RRUN_COMMIT ?= $(shell git rev-parse --short=12 HEAD 2>/dev/null || true)

define NEWLINE


endef
# What hangs is ended, where nobody watches; the next run takes away what is left of it. (From a terminal `timeout` would
# keep Ctrl-C from the tests.)
WITHIN = $(if $(CI),timeout --kill-after=30 $(1))
# How long a lane took, however it ended.
TIMED = trap 'echo "== $@: $$SECONDS s"' EXIT

.PHONY: help
help: ## this list
	grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{ printf "  %-13s  %s\n", $$1, $$2 }'

.PHONY: build
build: cc ## the static release binary
	if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx $(TARGET); then
		rustup target add $(TARGET)
	fi
	cargo build --release --target $(TARGET)

.PHONY: demo
demo: root build ## two containers, each command before its output (root)
	$(MAKE) tools || echo "the shell of this machine will do"
	integration/demo.sh $(BINARY)

.PHONY: check
check: cc ## format, lints, unit tests, golden plans, command line; no root
	$(TIMED)
	cargo fmt --all --check
	cargo clippy --all-targets -- -D warnings
	# beside --all-targets those that a plain `cargo test` leaves out would not be read
	cargo clippy --test integration --test managers --test seccomp -- -D warnings
	cargo clippy -p floor -p lane --all-targets -- -D warnings
	$(call WITHIN,1800) cargo test
	$(call WITHIN,600) cargo test -p lane

.PHONY: integration
integration: root tools $(if $(RUNTIME),,build) ## containers of every kind; RUNTIME=runc: on a peer; STRICT=1: no skips (root)
	$(TIMED)
	mkdir -p $(RESULTS)
	RUNTIME=$(or $(RUNTIME),$(BINARY)) $(call WITHIN,1800) cargo test --test integration -- --test-threads 2 $(TESTS) $(KEEP_RESULTS)

.PHONY: conformance
conformance: root tools $(if $(RUNTIME),,build) ## which demands of the OCI runtime-spec are met, one by one; RUNTIME=runc: by a peer (root)
	$(TIMED)
	mkdir -p $(RESULTS)
	RUNTIME=$(or $(RUNTIME),$(BINARY)) cargo test --test integration -- --test-threads 2 $(if $(RUNTIME),--include-ignored) \
		--exact $$($(TABLE) tests) >$(RESULTS)/host.out 2>$(RESULTS)/host.err || true
	$(SCORE)

# What tests said, by the name of the runtime. What ran on several machines is scored together.
RESULTS = $(TARGET_DIR)/conformance/$(notdir $(or $(RUNTIME),$(BINARY)))
KEEP_RESULTS = $(if $(TESTS),,> >(tee $(RESULTS)/host.out) 2> >(tee $(RESULTS)/host.err >&2))
TABLE = cargo test --quiet --test conformance --
define SCORE
	$(if $(RUNTIME),,cargo test --lib -- --exact $$($(TABLE) units) >$(RESULTS)/units.out 2>&1 || true)
	$(if $(RUNTIME),,find $(RESULTS) -name guest.out ! -newer $(BINARY) -delete)
	$(TABLE) score $(RESULTS)/*
endef

.PHONY: validation
validation: root $(if $(RUNTIME),,build) ## the programs of opencontainers/runtime-tools: SUITE=/where/it/was/built; RUNTIME=runc: on a peer (root)
	$(TIMED)
	[ -d "$(SUITE)/validation" ] || { echo "make validation: SUITE=DIR names a built copy of opencontainers/runtime-tools" >&2; exit 1; }
	integration/validation.sh $(SUITE) $$(command -v $(or $(RUNTIME),$(BINARY)))

.PHONY: score
score:
	$(SCORE)

.PHONY: seccomp
seccomp: cc ## filters against libseccomp's, verdict by verdict; PROFILES=5000 for more of them
	$(TIMED)
	echo '#include <seccomp.h>' | cc -fsyntax-only -x c - 2>/dev/null || $(call INSTALL,libseccomp-dev)
	$(call WITHIN,600) cargo test --test seccomp -- --nocapture

.PHONY: managers
managers: root tools $(if $(RUNTIME),,build) ## real dockerd, containerd and podman with rrun as their only runtime; RUNTIME=runc: with a peer (root)
	$(TIMED)
	for tool in dockerd docker containerd ctr docker-registry podman protoc nsenter ip ps; do
		PATH=$$PATH:/usr/sbin command -v $$tool >/dev/null || $(call INSTALL,$(MANAGERS))
	done
	/usr/bin/python3 -c 'import grpc, google.protobuf, websocket' 2>/dev/null || $(call INSTALL,$(MANAGERS))
	PATH=$$PATH:/usr/sbin RUNTIME=$(or $(RUNTIME),$(BINARY)) $(call WITHIN,1800) cargo test --test managers -- --test-threads 2 $(TESTS)

# The daemons, and what asks containerd as a kubelet does.
MANAGERS = docker.io containerd docker-registry podman python3-grpcio python3-protobuf python3-websocket protobuf-compiler util-linux iproute2 procps

.PHONY: bench
bench: root build ## what commands cost beside peers and the kernel's floor; SCENARIOS=run,exec ROUNDS=40 LAYOUTS=v1,v2 PACES=hot,spaced PEERS_DIR= (root)
	$(TIMED)
	cargo build --quiet --release --target $(TARGET) -p floor
	cargo build --quiet -p lane
	$(TARGET_DIR)/debug/lane $(or $(RUNTIME),$(BINARY)) $(TARGET_DIR)/$(TARGET)/release $(TARGET_DIR)/bench/result.json

.PHONY: bench-docs
bench-docs: cc ## the last bench's tables into docs/performance.md
	cargo run --quiet -p lane -- docs $(TARGET_DIR)/bench/result.json docs/performance.md

.PHONY: order
order: root build ## link/order.ld anew: the functions that commands run, one after another in the file (root)
	cargo build --quiet --release --target $(TARGET) --target-dir $(TARGET_DIR)/size --config profile.release.strip=false
	cargo build --quiet --release --target $(TARGET) -p floor
	cargo build --quiet -p lane
	$(TARGET_DIR)/debug/lane order $(TARGET_DIR)/size/$(TARGET)/release/rrun $(TARGET_DIR)/$(TARGET)/release link/order.ld

.PHONY: bench-parts
bench-parts: cc ## what makes no system call: config.json read, planned, its filter compiled (criterion)
	cargo bench -p lane --bench parts

.PHONY: bench-seccomp
bench-seccomp: cc ## filters against libseccomp's: instructions and nanoseconds per call, time to compile
	echo '#include <seccomp.h>' | cc -fsyntax-only -x c - 2>/dev/null || $(call INSTALL,libseccomp-dev)
	cargo bench --bench seccomp

.PHONY: fuzz
fuzz: cc ## parsers of what others write, against any bytes: FOR=60 seconds for each of fuzz/targets
	command -v cargo-fuzz >/dev/null || cargo install --locked cargo-fuzz
	for target in fuzz/targets/*.rs; do
		name=$$(basename $$target .rs)
		mkdir -p fuzz/corpus/$$name
		# libFuzzer's instrumentation is an unstable option of rustc, whichever rustc there is
		RUSTC_BOOTSTRAP=1 cargo fuzz run $$name fuzz/corpus/$$name tests/plans -- -max_total_time=$(or $(FOR),60) -timeout=10
	done

.PHONY: faults
faults: root tools $(if $(RUNTIME),,build) ## rrun killed at every system call of create, start, exec, pause, resume, update, kill and delete (root)
	$(TIMED)
	RUNTIME=$(or $(RUNTIME),$(BINARY)) $(call WITHIN,1800) cargo test --test integration -- --test-threads 2 --ignored --nocapture faults::

# Cargo runs the tests by `vm test`: the tests that it lists must be those that ran.
IN_GUEST = cargo --config "target.'cfg(all())'.runner='$(CURDIR)/integration/vm/vm test --cgroup $(1) \
	--timeout $(2) --runtime $(BINARY) $(3)'" test --test integration -- --test-threads 2
GUESTS = v2 v1 hybrid
# On v2 everything but these topics, which `integration` has on the host. They are about what neither the layout of cgroups nor
# systemd changes: the command line and config.json as they are read, the host as it is found, the root file system and its
# mounts, the program and its identity, seccomp, terminals and descriptors, hooks, records. Of some there are tests that
# need a kernel newer than the guest's 6.1 (ids of a tmpfs mapped: check, mount_ids, conformance::config and ::features;
# weighted interleaving: conformance::features) or one with groups of real time (scheduling). faults is a lane of its own.
# What is new runs in the guest until it is listed here.
SAME_EVERYWHERE = bad_input check cli devices faults fds hook_failures hooks host_mounts mount_ids mount_links mount_options \
	mounts net_devices notify process protection root scheduling seccomp state stdio terminal $(addprefix conformance::, \
	bundle config features hooks mount_options net_devices runtime seccomp)
# Of those topics the tests in which cgroups take part all the same: a limit that is refused, met, read or changed, a rule
# of devices, a freezer, a cgroup that is there or gone. And no_process, which --skip process:: takes along.
BUT_IN_CGROUPS = $(addprefix bad_input::, memory_limit swap_ cpu_that period_too huge_pages weight_of adapter_without \
	device_rule a_host_without_cgroups) devices::a_rule_allows host_mounts:: no_process:: hook_failures::a_hook_inside_counts \
	hooks::the_limits_stand notify::one_that_never_says_so conformance::config::an_exec_keeps_the_affinity \
	conformance::hooks::poststop_runs_after_all_is_gone $(addprefix conformance::runtime::, \
	a_status_of_the_runtimes_own what_the_config_asks_for what_create_made)
SKIPS = $(foreach topic,$(SAME_EVERYWHERE),--skip $(topic)::)
ABOUT_CGROUPS = checkpoint::files:: cgroups:: events:: freeze:: ps:: systemd:: update:: managers_on_systemd::limits_of_docker
USUAL = $(if $(filter v2,$(1)),$(SKIPS),$(ABOUT_CGROUPS))

.PHONY: vm-test
vm-test: guest build ## what cgroups or systemd can change, in a guest of each layout; TESTS=mounts:: for others (root)
	$(TIMED)
	$(foreach layout,$(GUESTS),$(call IN_GUEST,$(layout),1500) $(or $(TESTS),$(call USUAL,$(layout)))$(NEWLINE))
	$(if $(TESTS),,$(call IN_GUEST,v2,600) $(BUT_IN_CGROUPS))
	$(if $(TESTS),,$(MAKE) vm-systemd)
	$(if $(TESTS),,$(MAKE) vm-faults)

# The topics in which cgroups are made, limited, watched, joined (on v1 by the same file as ever) or emptied. Left out are
# tests of what systemd does otherwise: it sets its values again, over those of others (what_others_wrote,
# what_is_not_given_stays_on_v2) and in the file of each policy of weights (bfq), and removes the cgroup of a scope that
# nobody is in any more (an_empty_cgroup). And tests of containers with a cgroup of files at the top: on v1 systemd moves
# processes there, and removes empty cgroups, whenever it makes a scope for a test beside them.
BY_SYSTEMD = $(if $(filter v2,$(1)),exec::) checkpoint::files::limits cgroups:: cgroups_v2:: device_filter:: events:: freeze:: kill:: no_process:: \
	ps:: update:: update_v2:: v2_limits:: $(foreach name,what_others_wrote what_is_not_given_stays_on_v2 bfq_has_weights \
	kill_9_of_an_empty_cgroup a_relative_cgroups_path dots_in_a_cgroups_path the_same_path_is_the_same_place,--skip $(name))
.PHONY: vm-systemd
vm-systemd: guest build ## the tests about cgroups once more, with all of them made by systemd (root)
	$(TIMED)
	$(foreach layout,$(GUESTS),$(call IN_GUEST,$(layout),1500,--driver systemd) $(or $(TESTS),$(call BY_SYSTEMD,$(layout)))$(NEWLINE))

.PHONY: vm-faults
vm-faults: guest build ## rrun killed while it asks systemd for a unit, or has one removed (root)
	$(TIMED)
	$(call IN_GUEST,v2,600) --ignored --nocapture faults::by_systemd

.PHONY: vm-all
vm-all: guest build ## all of integration in a guest of each layout: long (root)
	$(TIMED)
	$(foreach layout,$(GUESTS),$(call IN_GUEST,$(layout),1500)$(NEWLINE))

.PHONY: vm-short
vm-short: guest build ## the guest lane itself, and a part of vm-test on cgroup v2 (root)
	$(TIMED)
	integration/vm/selftest.sh
	mkdir -p $(RESULTS)
	$(call IN_GUEST,v2,500) $(VM_SHORT) 2>&1 | tee $(RESULTS)/guest.out
VM_SHORT = checkpoint::a_container checkpoint::files::limits cgroups:: cgroups_v2:: device_filter:: namespaces:: labels::a_program systemd::

.PHONY: test
test: ## check, seccomp, integration, managers, faults and vm-short (root)
	$(TIMED)
	$(MAKE) check
	$(MAKE) seccomp
	$(MAKE) integration
	$(MAKE) managers
	$(MAKE) faults
	$(MAKE) vm-short
	$(MAKE) score

.PHONY: test-all
test-all: test ## test, vm-all, and integration and managers on Debian's runc to see that they test behaviour (root)
	$(TIMED)
	$(MAKE) vm-all
	command -v runc >/dev/null || $(call INSTALL,runc)
	$(MAKE) integration RUNTIME=runc STRICT= TESTS="--skip conformance::"
	$(MAKE) managers RUNTIME=runc STRICT=

.PHONY: install
install: build ## the binary into PREFIX=/usr/local, below DESTDIR=
	install -D -m 755 $(BINARY) $(DESTDIR)$(PREFIX)/bin/rrun

.PHONY: size
size: build ## bytes of the binary, and of each crate in it
	cargo build --quiet --release --target $(TARGET) --target-dir $(TARGET_DIR)/size --config profile.release.strip=false
	nm --print-size --radix d --demangle $(TARGET_DIR)/size/$(TARGET)/release/rrun | awk '
		NF >= 4 && $$3 ~ /[tTrRdDwW]/ {
			name = $$4; for (i = 5; i <= NF; i++) name = name " " $$i
			gsub(/^[<&*\[( ]+|(dyn|mut|const) /, "", name)
			crate = match(name, /^[a-z_0-9]+::/) ? substr(name, 1, RLENGTH - 2) : "C library and others"
			bytes[crate] += $$2
		}
		END { for (crate in bytes) printf "%9d  %s\n", bytes[crate], crate }' | sort -rn
	echo "$$(stat -c %s $(BINARY))  in all, stripped"

.PHONY: map
map: ## which module imports which, and what breaks the floors
	cargo test --quiet --test floors -- --include-ignored --nocapture --test-threads 1 map modules

# --- what the targets above stand on ---

.PHONY: root
root:
	if [ "$$(id -u)" != 0 ]; then
		echo "make $(MAKECMDGOALS): making containers needs root: sudo make $(MAKECMDGOALS)" >&2
		exit 1
	fi

# Package lists may be missing or old.
INSTALL = { [ "$$(id -u)" = 0 ] || { echo "root is needed to apt-get install $(1)" >&2; exit 1; }; \
	$(call APT,$(1)) || { apt-get -qq update && $(call APT,$(1)); }; }
APT = DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y $(1) </dev/null

# Rust links by the C compiler, also what holds no C.
.PHONY: cc
cc:
	command -v cc >/dev/null || $(call INSTALL,gcc libc6-dev)

# A shell that needs no libraries makes the images; newuidmap maps ids of ordinary users; ip makes network devices. Where there is no apt, the demo takes the host's own shell.
.PHONY: tools
tools:
	if ! command -v busybox >/dev/null || ldd "$$(command -v busybox)" >/dev/null 2>&1; then
		if command -v apt-get >/dev/null; then $(call INSTALL,busybox-static); fi
	fi
	if ! command -v newuidmap >/dev/null && command -v apt-get >/dev/null; then $(call INSTALL,uidmap); fi
	if ! command -v runc >/dev/null && command -v apt-get >/dev/null; then $(call INSTALL,runc); fi
	if ! PATH=$$PATH:/usr/sbin command -v ip >/dev/null && command -v apt-get >/dev/null; then $(call INSTALL,iproute2); fi

# The guest is one of x86-64, where its tests are built for.
.PHONY: guest
guest: root
	for tool in qemu-system-x86_64 qemu-img mmdebstrap mke2fs; do
		PATH=$$PATH:/usr/sbin command -v $$tool >/dev/null || $(call INSTALL,qemu-system-x86 qemu-utils mmdebstrap e2fsprogs)
	done
	integration/vm/vm build
