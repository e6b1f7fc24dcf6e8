# sse - per-user push over Server-Sent Events, in one C file
#
#   make             builds ./sse
#   make run         builds it and serves on http://127.0.0.1:8080 (ARGS='...' adds options)
#   make test        builds it and runs test.sh and the unit tests; needs curl
#   make bench       measures streams, memory, publishing and stopping
#   make install     to $(DESTDIR)$(PREFIX)/bin
#   make uninstall   removes it from there
#   make clean       removes what was built
#
# The usual variables can be set: CC, CFLAGS, LDFLAGS, LDLIBS, PREFIX, DESTDIR. For instance
#   make clean all CC=musl-gcc LDFLAGS=-static

CC ?= cc
CFLAGS ?= -O2
PREFIX ?= /usr/local
INSTALL ?= install
BUILD ?= build

STANDARD = -std=c11 -pthread
WARNINGS = -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes
COMPILE = $(CC) $(STANDARD) $(WARNINGS) $(CPPFLAGS) $(CFLAGS)
LINK = $(LDFLAGS) $(LDLIBS)

ifdef TLS
$(error HTTPS and tokens are not part of this version yet)
endif

.PHONY: all run test bench install uninstall clean

all: sse

sse: sse.c Makefile
	$(COMPILE) -o $@ sse.c $(LINK)

run: sse
	./sse $(ARGS)

test: sse $(BUILD)/unit $(BUILD)/raw $(BUILD)/bench $(BUILD)/embed
	BUILD=$(BUILD) ./test.sh

bench: sse $(BUILD)/bench
	$(BUILD)/bench ./sse

$(BUILD)/unit: tests/unit.c tests/unit-http.h tests/unit-store.h sse.c Makefile
	@mkdir -p $(BUILD)
	$(COMPILE) -o $@ tests/unit.c $(LINK)

$(BUILD)/embed: sse.c
$(BUILD)/%: tests/%.c Makefile
	@mkdir -p $(BUILD)
	$(COMPILE) -o $@ $< $(LINK)

install: sse
	$(INSTALL) -d $(DESTDIR)$(PREFIX)/bin
	$(INSTALL) -m 755 sse $(DESTDIR)$(PREFIX)/bin/sse

uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/sse

clean:
	rm -rf sse $(BUILD)
