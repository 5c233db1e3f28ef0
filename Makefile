# Warren. `make` alone says what there is.

PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
PROFILE ?= release
TARGET  ?= target/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

# Plain shell scripts, all of them linted.
SCRIPTS = scripts/setup scripts/demo scripts/brokers scripts/systemd-box scripts/deb scripts/licences $(wildcard debian/warren.p*) systemd/plugins-changed .ci/run

# The end-to-end suites that test-brokers runs (none named: all but that of the service), and the Debian releases whose
# RabbitMQ it runs them on: 4.0, and the newest there is.
SUITES  =
BROKERS = trixie sid

.PHONY: help setup build test test-brokers test-brokers-short test-systemd lint demo bench bench-memory simulate soak attack deb install shipped place

help:
	@echo 'make demo     RabbitMQ, warrend and the eight tasks of the tutorial, in a temporary directory'
	@echo 'make test     all tests, on RabbitMQ nodes that the tests start themselves'
	@echo 'make test-brokers  the end-to-end suites on RabbitMQ 4.0 and 4.3 [BROKERS="trixie sid"] [SUITES="link drain"]'
	@echo 'make test-systemd  the service on a real systemd, in throw-away boxes; as root'
	@echo 'make lint     rustfmt, clippy, rustdoc, shellcheck'
	@echo 'make simulate  the engine in virtual time, with faults of every kind: [SEEDS=10000] [SEED=1] [REPLAY=]'
	@echo 'make soak     random faults while tasks run, and a ledger: [SOAK_MINUTES=10] [SOAK_SEED=] [SOAK_KEEP=1]'
	@echo 'make attack   whatever a producer may send, at a daemon that has other tasks: [ATTACK_MINUTES=10] [ATTACK_SEED=]'
	@echo 'make bench    what a task costs, beside plain consumers: [TASKS=200000] [ROUNDS=1] [PARTS="throughput latency failing recovery"]'
	@echo 'make bench-memory  resident memory over a million tasks'
	@echo 'make deb      a Debian package in target/deb: [DEB_VERSION=] [PROFILE=dev]'
	@echo 'make install  a release build: [PREFIX=/usr/local] [DESTDIR=]'
	@echo 'make setup    installs what the others need and this machine lacks'

setup:
	@scripts/setup

build: setup
	$(CARGO) build --locked --workspace

# The tests use the programs and plugins that `build` makes. They wait for processes and brokers most of the time: so many
# run at once that two cores are busy.
TEST_THREADS ?= 8
test: build
	RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --locked --workspace

# Debian releases in directories of their own (scripts/brokers). As many packages as `build`: of fewer cargo would
# build other dependencies.
test-brokers: build
	@set -e; for release in $(BROKERS); do \
		tree=$$(scripts/brokers $$release); \
		echo "== $$release: $$(basename $$tree/usr/lib/rabbitmq/lib/*)"; \
		WARREN_TEST_BROKER=$$tree RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --locked --workspace --test e2e -- $(addsuffix ::,$(SUITES)); \
	done

# What a change is most likely to break there: for every run of .ci/run.
test-brokers-short:
	@$(MAKE) --no-print-directory test-brokers BROKERS=trixie SUITES='link main_path quorum'

# Not a part of `test`, because it needs root and systemd: scripts/systemd-box says for what.
test-systemd: build
	@scripts/setup systemd
	$(CARGO) test --locked --workspace --test systemd

lint: setup
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' $(CARGO) doc --locked --workspace --no-deps --document-private-items
	shellcheck $(SCRIPTS)

demo: build
	@scripts/demo

# Release builds, without what only tests need. Some five minutes at 200,000 tasks; every row is printed as it is known.
bench: setup
	$(CARGO) build --locked --release --no-default-features --package warren --package warren-fixture-noop --package warren-tests \
		--lib --bin warrend --bin bench
	$(TARGET)/bench $(if $(TASKS),--tasks $(TASKS)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(PARTS)

bench-memory:
	@$(MAKE) --no-print-directory bench PARTS=memory

# The engine's core against models of the broker, the hosts, the operators and the machine (daemon/src/sim). A run that
# breaks an invariant is made smaller and told; REPLAY plays it again.
simulate: setup
	$(CARGO) build --locked --profile simulate --package warren --features simulate --bin simulate
	target/simulate/simulate $(if $(REPLAY),--replay $(REPLAY),$(if $(SEEDS),--seeds $(SEEDS)) $(if $(SEED),--seed $(SEED)))

soak: build
	$(CARGO) run --quiet --locked --package warren-tests --bin soak

# A release build: waits are judged, and a debug build copies a large body byte by byte.
attack: setup
	$(CARGO) build --locked --release --workspace
	$(CARGO) run --quiet --locked --release --package warren-tests --bin attack

# Puts a release build in place. Afterwards: systemd-sysusers && systemd-tmpfiles --create && systemctl enable --now
# warrend.
install: shipped
	@$(MAKE) --no-print-directory place

# Of a debug build the package has failpoints; it is for tests.
deb: $(if $(filter dev,$(PROFILE)),build,shipped)
	@scripts/setup deb
	@scripts/deb $(TARGET) $(DEB_VERSION)

shipped:
	$(CARGO) build --profile $(PROFILE) --locked --package warren --bins
	$(CARGO) build --profile $(PROFILE) --locked $(patsubst plugins/%/Cargo.toml,--package warren-%,$(wildcard plugins/*/Cargo.toml))

# What is built in TARGET, put in place. The configuration is only written where there is none; sources name /usr, which
# becomes PREFIX.
UNITS = $(wildcard systemd/*.service systemd/*.path)
place:
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/lib/warren/plugins $(DESTDIR)$(PREFIX)/include
	install -m 0755 $(TARGET)/warrend $(TARGET)/warrenctl $(DESTDIR)$(PREFIX)/bin/
	for so in $(TARGET)/libwarren_*.so; do \
		name=$${so##*/libwarren_}; name=$$(printf %s "$${name%.so}" | tr _ -); \
		[ -d plugins/$$name ] || continue; \
		install -m 0644 "$$so" "$(DESTDIR)$(PREFIX)/lib/warren/plugins/$$name.so" || exit 1; \
	done
	install -m 0644 plugin-api/include/warren_plugin.h $(DESTDIR)$(PREFIX)/include/
	$(TARGET)/warrenctl pages $(DESTDIR)$(PREFIX)/share
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system $(DESTDIR)$(PREFIX)/lib/sysusers.d $(DESTDIR)$(PREFIX)/lib/tmpfiles.d
	for unit in $(notdir $(UNITS)); do \
		sed 's|/usr/|$(PREFIX)/|g' systemd/$$unit > $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit || exit 1; \
		chmod 0644 $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit; \
	done
	install -m 0755 systemd/plugins-changed $(DESTDIR)$(PREFIX)/lib/warren/
	install -m 0644 systemd/warren.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/warren.conf
	install -m 0644 systemd/warren.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/warren.conf
	install -d $(DESTDIR)/etc/warren/conf.d
	if [ ! -e $(DESTDIR)/etc/warren/warren.toml ]; then \
		install -m 0640 config/warren.toml $(DESTDIR)/etc/warren/warren.toml && \
		if [ "$(PREFIX)" != /usr ]; then \
			sed -i 's|^#dir = "/usr/lib/|dir = "$(PREFIX)/lib/|' $(DESTDIR)/etc/warren/warren.toml; \
		fi; \
	fi
	install -d $(DESTDIR)$(PREFIX)/share/doc/warren/examples
	install -m 0644 systemd/examples/*.conf $(DESTDIR)$(PREFIX)/share/doc/warren/examples/
	install -d $(DESTDIR)$(PREFIX)/share/doc/warren/docs
	install -m 0644 README.md $(DESTDIR)$(PREFIX)/share/doc/warren/
	install -m 0644 docs/operating.md $(DESTDIR)$(PREFIX)/share/doc/warren/docs/
