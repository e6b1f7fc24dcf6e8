# sse - per-user push over Server-Sent Events, in one C file
#
#   make             builds ./sse
#   make run         builds it and serves on http://127.0.0.1:8080 (ARGS='...' adds options)
#   make test        builds it, and with OpenSSL as well if that is here, and runs test.sh; needs curl
#   make bench       measures deliveries, delay, connects and idle streams, in two minutes
#   make bench-peers the same beside nginx with nchan, libmicrohttpd, Node and a bare skeleton, in
#                    a quarter of an hour; needs nginx, libnginx-mod-nchan, libmicrohttpd-dev and nodejs
#   make static      a small static program, build/sse-static; needs musl-gcc (musl-tools)
#   make install     ./sse as it was built last, its page sse(1), and sse.service for systemd
#   make uninstall   removes these three
#   make clean       removes what was built
#
# With TLS=1 the program can speak HTTPS and check tokens; that takes OpenSSL 3 (libssl-dev). Then
# make run serves on https://localhost:8443, with a certificate that it makes for itself, and what is
# measured goes over HTTPS.
#
# The usual variables can be set: CC, CFLAGS, LDFLAGS, LDLIBS; PREFIX, MANDIR, UNITDIR, DESTDIR. For
# instance
#   make static CC=aarch64-linux-musl-gcc
#   make install PREFIX=/usr DESTDIR=/tmp/package

CC ?= cc
CFLAGS ?= -O2
PREFIX ?= /usr/local
MANDIR ?= $(PREFIX)/share/man
UNITDIR ?= $(PREFIX)/lib/systemd/system
INSTALL ?= install
BUILD ?= build

STANDARD = -std=c11 -pthread
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes
COMPILE = $(CC) $(STANDARD) $(WARNINGS) $(CPPFLAGS) $(CFLAGS)
LINK = $(LDFLAGS) $(LDLIBS)
WITH_OPENSSL = -DSSE_TLS
OPENSSL_LIBS = -lssl -lcrypto

# make install, and nothing else said: what was built last, with OpenSSL or without, will do.
SAID = $(findstring command,$(foreach name, TLS CC CFLAGS CPPFLAGS LDFLAGS LDLIBS,$(origin $(name))))
ifeq ($(MAKECMDGOALS)$(SAID),install)
AS_BUILT = yes
ifneq ($(shell grep -s SSE_TLS $(BUILD)/how-sse),)
TLS = 1
endif
endif

ifdef TLS
TLS_FLAGS = $(WITH_OPENSSL)
TLS_LIBS = $(OPENSSL_LIBS)
SERVE = --port 8443 --cert $(BUILD)/localhost.pem --key $(BUILD)/localhost-key.pem
CERTIFICATE = $(BUILD)/localhost.pem
endif

TESTERS = $(addprefix $(BUILD)/, sse unit raw bench embed faults peers/skeleton)
HTTPS_TESTERS = $(addprefix $(BUILD)/tls/, sse unit raw bench embed faults)

# What is measured; the variables are bench's to set.
SIZED = -q -p $$PORT --max-connections $$CONNECTIONS --max-users $$CONNECTIONS --max-streams $$CONNECTIONS
ifdef TLS
BENCH = $(BUILD)/tls/bench --tls $(BUILD)/localhost.pem $(BUILD)/localhost-key.pem
BENCHED = 'sse=$(BUILD)/tls/sse $(SIZED) --cert $$CERT --key $$KEY'
PEERS = nchan=tests/peers/nchan 'node=node tests/peers/node.mjs'
BENCH_NEEDS = $(BUILD)/tls/sse $(BUILD)/tls/bench $(BUILD)/localhost.pem
else
BENCH = $(BUILD)/bench
BENCHED = 'sse=$(BUILD)/sse $(SIZED)'
PEERS = nchan=tests/peers/nchan microhttpd=$(BUILD)/peers/microhttpd \
    'node=node tests/peers/node.mjs' skeleton=$(BUILD)/peers/skeleton \
    'batching=env BATCH=1 $(BUILD)/peers/skeleton'
BENCH_NEEDS = $(BUILD)/sse $(BUILD)/bench
PEERS_NEED = $(BUILD)/peers/skeleton $(BUILD)/peers/microhttpd
endif

.PHONY: all run test bench bench-peers static install uninstall clean FORCE

all: sse

sse: sse.c $(BUILD)/how-sse
	$(COMPILE) $(TLS_FLAGS) -o $@ sse.c $(LINK) $(TLS_LIBS)

run: sse $(CERTIFICATE)
	./sse $(SERVE) $(ARGS)

test: $(TESTERS)
	@echo '#include <openssl/ssl.h>' | $(CC) $(CPPFLAGS) -E - >/dev/null 2>&1 || exit 0; \
	$(MAKE) $(HTTPS_TESTERS)
	@echo '#include <stdlib.h>' | $(CC) $(CPPFLAGS) -dM -E - 2>/dev/null | grep -q __GLIBC__ || exit 0; \
	$(MAKE) $(BUILD)/preload.so
	BUILD=$(BUILD) ./test.sh

bench: $(BENCH_NEEDS)
	$(BENCH) --short $(ARGS) $(BENCHED)

bench-peers: $(BENCH_NEEDS) $(PEERS_NEED)
	$(BENCH) --short $(ARGS) $(BENCHED) $(PEERS)

# How things were compiled last time: if that changes, they are built anew.
$(BUILD)/how: HOW = $(COMPILE) $(LINK)
$(BUILD)/how-sse: HOW = $(COMPILE) $(TLS_FLAGS) $(LINK) $(TLS_LIBS)
$(BUILD)/how $(BUILD)/how-sse: $(if $(AS_BUILT),,FORCE)
	@mkdir -p $(BUILD)/tls
	@echo '$(HOW)' | cmp -s - $@ || echo '$(HOW)' >$@

$(BUILD)/%: tests/%.c tests/unit-http.h tests/unit-store.h tests/unit-token.h tests/parse.h tests/wire.h tests/client.h sse.c $(BUILD)/how
	$(COMPILE) -o $@ $< $(LINK)

$(BUILD)/tls/%: tests/%.c tests/unit-http.h tests/unit-store.h tests/unit-token.h tests/parse.h tests/wire.h tests/client.h sse.c $(BUILD)/how
	$(COMPILE) $(WITH_OPENSSL) -o $@ $< $(LINK) $(OPENSSL_LIBS)

$(BUILD)/sse: sse.c $(BUILD)/how
	$(COMPILE) -o $@ sse.c $(LINK)

$(BUILD)/tls/sse: sse.c $(BUILD)/how
	$(COMPILE) $(WITH_OPENSSL) -o $@ sse.c $(LINK) $(OPENSSL_LIBS)

$(BUILD)/peers/%: tests/peers/%.c $(BUILD)/how
	@mkdir -p $(@D)
	$(COMPILE) -o $@ $< $(LINK) $(if $(findstring microhttpd,$@),-lmicrohttpd)

$(BUILD)/preload.so: tests/preload.c $(BUILD)/how
	$(COMPILE) -shared -fPIC -o $@ $< -ldl

$(BUILD)/localhost.pem: | $(BUILD)/how
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 825 \
	    -subj /CN=localhost -addext 'subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1' \
	    -out $@.new -keyout $(BUILD)/localhost-key.pem
	mv $@.new $@

static: CC = musl-gcc
static: CFLAGS = -Os
static: LDFLAGS = -static -s
static:
	@command -v $(firstword $(CC)) >/dev/null || \
	    { echo 'make static: there is no $(CC); install musl-tools, or name another: CC=...' >&2; exit 1; }
	@mkdir -p $(BUILD)
	$(COMPILE) $(TLS_FLAGS) -o $(BUILD)/sse-static sse.c $(LINK) $(TLS_LIBS)
	@echo "$(BUILD)/sse-static: $$(wc -c <$(BUILD)/sse-static) bytes"

# Page and unit name the folders they go to, which may be others each time. They are made anew, not
# written over: where root made them last, the owner of the folder can still do it.
FILL = sed -e 's,@PREFIX@,$(PREFIX),g' -e 's,@UNITDIR@,$(UNITDIR),g'

# The page's options are what --help says. A program for another machine cannot be asked.
$(BUILD)/sse.1: packaging/sse.1.in packaging/options.awk sse FORCE
	@rm -f $@ $@.options
	@if ./sse --help 2>/dev/null | awk -f packaging/options.awk >$@.options; then \
	    $(FILL) -e '/^@OPTIONS@$$/{r $@.options' -e 'd;}' packaging/sse.1.in >$@; \
	else echo 'no man page: it takes a ./sse that runs on this machine'; fi

$(BUILD)/sse.service: packaging/sse.service.in $(BUILD)/how-sse FORCE
	@rm -f $@
	@$(FILL) packaging/sse.service.in >$@

install: sse $(BUILD)/sse.1 $(BUILD)/sse.service
	$(INSTALL) -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(MANDIR)/man1' '$(DESTDIR)$(UNITDIR)'
	$(INSTALL) -m 755 sse '$(DESTDIR)$(PREFIX)/bin/sse'
	[ ! -e $(BUILD)/sse.1 ] || $(INSTALL) -m 644 $(BUILD)/sse.1 '$(DESTDIR)$(MANDIR)/man1/sse.1'
	$(INSTALL) -m 644 $(BUILD)/sse.service '$(DESTDIR)$(UNITDIR)/sse.service'

uninstall:
	rm -f '$(DESTDIR)$(PREFIX)/bin/sse' '$(DESTDIR)$(MANDIR)/man1/sse.1' '$(DESTDIR)$(UNITDIR)/sse.service'

clean:
	rm -rf sse $(BUILD)
