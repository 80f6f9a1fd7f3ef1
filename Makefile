# doppler's build: one file, every command in it. `make help` lists the targets; docs/testing.md
# says what each check is for. Variables: CONFIG=release|debug|coverage, SAN=address,undefined or
# thread, CC=clang, WERROR= (warnings stay warnings), V=1 (whole commands), BUILD=dir, PREFIX=,
# DESTDIR=. What a machine always wants set goes into Makefile.config, which is not tracked. Objects
# lie under build/CONFIG[-compiler][-sanitizers]/, so no two settings mix.
MAKEFLAGS += --no-builtin-rules
-include Makefile.config

CC := $(if $(filter default,$(origin CC)),gcc,$(CC))
AR ?= ar
OBJCOPY ?= objcopy
CONFIG ?= release
WERROR ?= -Werror
BUILD ?= build
PREFIX ?= /usr/local
SECONDS ?= 30
VERSION := $(shell awk '$$2 == "DP_VERSION" { gsub(/"/, "", $$3); print $$3 }' include/doppler.h)
SOVERSION := 0

Q := $(if $(V),,@)
comma := ,
compiler := $(filter-out cc gcc,$(notdir $(CC)))
B := $(BUILD)/$(CONFIG)$(if $(compiler),-$(compiler))$(if $(SAN),-$(subst $(comma),-,$(SAN)))
GEN := $(B)/gen
# Where WebGPU libraries and models are looked for if nothing is said: here, then where installed.
WEBGPU_DIRS ?= $(abspath deps/webgpu):$(PREFIX)/lib/doppler
MODEL_DIRS ?= $(abspath $(BUILD)/models):$(abspath models):$(PREFIX)/share/doppler/models

OPTIMISE_release := -O2
OPTIMISE_debug := -Og
OPTIMISE_coverage := -O0 --coverage
OPTIMISE := $(or $(OPTIMISE_$(CONFIG)),$(error CONFIG=$(CONFIG): not release, debug, coverage))
SANITIZE := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
WARNINGS := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes \
	-Wmissing-prototypes $(WERROR)
# Clang also minds fields that are zero for want of a value, and asserts whose condition is a text.
WARNINGS += $(if $(findstring clang,$(CC)),-Wno-missing-field-initializers -Wno-string-conversion \
	-Wno-string-concatenation)
COMMON := -std=gnu11 $(OPTIMISE) -ffp-contract=off -g -fPIC -fvisibility=hidden $(SANITIZE)
INCLUDES := -Isrc -Iinclude -I$(GEN) -isystem deps/yyjson -isystem deps/pcre2 -isystem deps/utf8proc
# Dependencies built as our own static objects, the 8-bit PCRE2 without its just-in-time compiler.
DEFINES := -DPCRE2_CODE_UNIT_WIDTH=8 -DPCRE2_STATIC -DUTF8PROC_STATIC -Dyyjson_api= \
	-DOPENSSL_SUPPRESS_DEPRECATED
# Sanitized, they are watched for bad addresses only: all of it takes minutes of compiling. For
# fuzzers clang takes those minutes over PCRE2 even so: there only what we hand it is watched.
DEPS_FLAGS := -w -DHAVE_CONFIG_H -DSUPPORT_UNICODE -DSUPPORT_PCRE2_8 \
	$(if $(SAN),-O1 -g0 -fno-sanitize=undefined -fno-sanitize-address-use-after-scope)
# SHA-256 is all that is used of libcrypto: what it needs is linked into each product.
CRYPTO := -l:libcrypto.a
LIBS := $(CRYPTO) -lm -ldl -lpthread

# --- Sources -------------------------------------------------------------------------------------

LIB_SRC := $(filter-out %_web.c,$(sort \
	$(wildcard $(patsubst %,src/%/*.c,base gpu format text store model))))
APP_SRC := $(sort $(wildcard src/app/*.c))
REF_SRC := $(sort $(wildcard src/ref/*.c))
TEST_SRC := $(sort $(wildcard tests/*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(sort $(wildcard tests/fuzz/*.c)))
DEPS_SRC := deps/yyjson/yyjson.c deps/utf8proc/utf8proc.c $(sort $(wildcard deps/pcre2/*.c))
KERNELS := $(sort $(wildcard kernels/*.wgsl)) $(sort $(wildcard kernels/part/*.wgsl)) \
    $(sort $(wildcard kernels/common/*.wgsl))
GENERATED := $(if $(wildcard tools/embed.c),$(GEN)/kernels_gen.h $(GEN)/kernels_gen.c)

objects = $(patsubst %.c,$(B)/%.o,$(1))
DEPS_OBJ := $(call objects,$(DEPS_SRC))
LIB_OBJ := $(call objects,$(LIB_SRC)) $(if $(GENERATED),$(GEN)/kernels_gen.o) $(DEPS_OBJ)
APP_OBJ := $(call objects,$(APP_SRC))
REF_OBJ := $(call objects,$(REF_SRC))
TEST_OBJ := $(call objects,$(TEST_SRC))
PROGRAM := $(if $(wildcard src/app/main.c),$(BUILD)/doppler)
RUNNER := $(if $(wildcard tests/test.c),$(B)/test)
# The bundled models as packs: what the program runs without -m, and what is installed.
PACKS := $(if $(PROGRAM),$(patsubst models/%/config.json,$(BUILD)/models/%/manifest.json,\
	$(wildcard models/*/config.json)))
LIBRARIES := $(if $(LIB_SRC),$(B)/libdoppler.a $(B)/libdoppler.so.$(SOVERSION))

.PHONY: all help runner test check lint fuzz fuzzers examples bench format sizes one clean \
	install FORCE
.DELETE_ON_ERROR:
.SECONDARY:
all: $(LIBRARIES) $(PROGRAM) $(PACKS)

help:
	@echo 'make [all]             the program build/doppler and both libraries'
	@echo 'make test [T=name]     all tests that this machine can run, or those whose name matches'
	@echo 'make check             what CI runs: lint, tests, tests under sanitizers, fuzzers'
	@echo 'make lint              layers, names, symbols, headers, clang-tidy, cppcheck'
	@echo 'make web               the page, the package, their wasm and the bundled model: build/web'
	@echo 'make fuzz F=gguf [SECONDS=30]   one fuzzer from its seeds'
	@echo 'make bench             the bundled model on this device, and the time of every kernel'
	@echo 'make sizes, one, format         lines against budget; one translation unit; clang-format'
	@echo 'make install PREFIX= DESTDIR=   program, header, libraries, doppler.pc, man page, model'
	@echo 'make examples          examples/ against an installed copy; clean: removes $(BUILD)/'

# --- Objects -------------------------------------------------------------------------------------

# Files that change only when their text does: another flag or PREFIX rebuilds what it touches.
remember = @mkdir -p $(@D); echo '$(1)' | cmp -s - $@ || echo '$(1)' >$@
$(B)/flags: FORCE | deps/stamp
	$(call remember,$(CC) $(CFLAGS) $(CPPFLAGS) $(WARNINGS) $(COMMON) $(INCLUDES) $(DEFINES))
$(B)/dirs: FORCE
	$(call remember,$(WEBGPU_DIRS) $(MODEL_DIRS))

# webgpu.h is within reach of src/gpu alone.
$(B)/src/gpu/%.o: private LAYER := -isystem deps/webgpu -DDP_WEBGPU_DIRS='"$(WEBGPU_DIRS)"'
$(B)/src/app/%.o: private LAYER := -DDP_MODEL_DIRS='"$(MODEL_DIRS)"'
$(B)/tests/%.o: private LAYER := -I.
$(call objects,$(wildcard src/gpu/*.c src/app/*.c)): $(B)/dirs
# What a measurement says of the build, and where its prompts lie: here, then where installed.
COMMIT := $(shell git describe --always --dirty --abbrev=12 2>/dev/null)
PROMPT_DIRS := $(abspath bench/prompts):$(PREFIX)/share/doppler/prompts
$(B)/src/app/bench_env.o: private LAYER := -DDP_COMMIT='"$(COMMIT)"' \
	-DDP_PROMPT_DIRS='"$(PROMPT_DIRS)"'
$(B)/src/app/bench_env.o: $(B)/commit
$(B)/commit: FORCE
	$(call remember,$(COMMIT) $(PROMPT_DIRS))

$(call objects,$(filter src/gpu/% src/model/%,$(LIB_SRC)) $(REF_SRC) $(TEST_SRC)): \
	| $(GENERATED)
$(B)/%.o: %.c $(B)/flags
	@mkdir -p $(@D)
	@echo '  CC      $<'
	$(Q)$(CC) $(COMMON) $(WARNINGS) $(INCLUDES) $(DEFINES) $(LAYER) $(CPPFLAGS) $(CFLAGS) \
		-MMD -MP -c $< -o $@
$(GEN)/kernels_gen.o: $(GEN)/kernels_gen.c $(B)/flags
	$(Q)$(CC) $(COMMON) $(WARNINGS) $(INCLUDES) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@
$(B)/deps/pcre2/%.o: private DEPS_EXTRA := $(if $(findstring fuzzer,$(SAN)),-fno-sanitize=all)
$(B)/deps/%.o: deps/%.c $(B)/flags
	@mkdir -p $(@D)
	@echo '  CC      $<'
	$(Q)$(CC) $(COMMON) $(DEPS_FLAGS) $(DEPS_EXTRA) $(INCLUDES) $(DEFINES) $(CPPFLAGS) $(CFLAGS) \
		-MMD -MP -c $< -o $@

deps/%:
	@echo 'make: $@ is missing: run tools/setup first' >&2; exit 1

# The kernels' text, bindings, parameters and constants as C, by a tool of this machine.
$(B)/embed: tools/embed.c $(B)/flags
	@echo '  CC      $<'
	$(Q)$(CC) -std=gnu11 -O1 -g $(WARNINGS) $< -o $@
ifneq ($(GENERATED),)
$(GENERATED) &: $(B)/embed $(KERNELS)
	@mkdir -p $(GEN)
	@echo '  EMBED   kernels/'
	$(Q)$(B)/embed -o $(GEN) $(KERNELS)
endif

# --- Libraries and programs ----------------------------------------------------------------------

LINK = $(CC) $(COMMON) $(CFLAGS) $(LDFLAGS)

# One relocatable object whose other symbols are made local: a user's program sees dp_ names only.
$(B)/libdoppler.a: $(LIB_OBJ)
	@echo '  JOIN    $@'
	$(Q)$(CC) -r -nostdlib -Wl,-d -o $(B)/libdoppler.o $^ $(CRYPTO)
	$(Q)$(OBJCOPY) --localize-hidden --wildcard --keep-global-symbol='dp_*' $(B)/libdoppler.o
	@rm -f $@
	$(Q)$(AR) rcs $@ $(B)/libdoppler.o
$(B)/libdoppler.so.$(SOVERSION): $(LIB_OBJ)
	@echo '  LINK    $@'
	$(Q)$(LINK) -shared -Wl,-soname,$(@F) -Wl,--exclude-libs,ALL \
		$(if $(SAN),,-Wl,--no-undefined) -o $@ $^ $(LIBS)

# Programs that open devices keep drivers loaded where leaks are looked for.
KEEP_OBJ := $(if $(SAN),$(B)/tests/sanitize/keep_loaded.o)
KEEP := $(if $(SAN),-Wl$(comma)--export-dynamic-symbol=dlclose)

# The program has the references too: `doppler check` holds every kernel against them.
$(B)/doppler: $(APP_OBJ) $(REF_OBJ) $(LIB_OBJ) $(KEEP_OBJ)
	@echo '  LINK    $@'
	$(Q)$(LINK) $(KEEP) -o $@ $^ $(LIBS)
$(BUILD)/doppler: $(B)/doppler FORCE
	@[ "$$(readlink $@)" = $(<:$(BUILD)/%=%) ] || ln -sfn $(<:$(BUILD)/%=%) $@

# A folder of models/ as a pack, its formats kept; made again when the folder or the format of
# packs changes.
PACK_FORMAT := $(wildcard src/model/convert*.c src/model/config_write*.c)
$(BUILD)/models/%/manifest.json: models/%/config.json models/%/model.safetensors $(PACK_FORMAT) \
		| $(PROGRAM)
	@echo '  PACK    $(@D)'
	@mkdir -p $(dir $(@D))
	$(Q)$(BUILD)/doppler convert $(<D) $(@D) >/dev/null

# Tools linked with the library: models of random weights for tests and for measuring, the table of
# docs/quantise.md, answers to many prompts for measuring a model's skills.
$(B)/random-gguf $(B)/quant-table $(B)/answers: $(B)/%: $(B)/tools/%.o $(LIB_OBJ)
	@echo '  LINK    $@'
	$(Q)$(LINK) -o $@ $^ $(LIBS)

runner: $(RUNNER)
$(B)/test: $(TEST_OBJ) $(REF_OBJ) $(LIB_OBJ) $(KEEP_OBJ)
	@echo '  LINK    $@'
	$(Q)$(LINK) $(KEEP) -o $@ $^ $(LIBS)

# The engine as wasm, and the page: `make web`.
include web/web.mk

# --- Tests ---------------------------------------------------------------------------------------

# tools/step runs one step to its end, keeps its log and its "N passed, N failed, N skipped", and
# never stops make; `tools/step --total` adds the steps up and fails if one of them did. A step that
# failed gets an old date, so that only a passed one counts as up to date. Two steps run at a time.
STEP := tools/step
DATA := $(shell find tests/vectors models -type f 2>/dev/null)
export NODEVICE_SELECT ?= 1# keeps Mesa's layer that looks for a display server quiet
# Freed memory waits in a quarantine before it is used again; most of it is the driver's compiler's,
# and touching 256 MB of it anew is a fifth of a short program's time.
export ASAN_OPTIONS ?= detect_stack_use_after_return=1:strict_string_checks=1:quarantine_size_mb=32
export LSAN_OPTIONS ?= suppressions=$(abspath tests/lsan.supp):print_suppressions=0
export UBSAN_OPTIONS ?= print_stacktrace=1
# Examples are a user's programs: they are linked with the library as it is installed.
TESTS := $(if $(RUNNER),runner) $(if $(PROGRAM),cli) \
	$(if $(SAN),,$(if $(LIBRARIES),examples) $(if $(PROGRAM),web))
totals = $(1:%=$(B)/log/%.total)

$(B)/log/runner.total: $(RUNNER) $(DATA)
	@$(STEP) $@ $(RUNNER) -v
$(B)/log/cli.total: $(B)/doppler $(B)/random-gguf $(DATA) $(wildcard tests/cli/*)
	@$(STEP) $@ tests/cli/run $(B)/doppler
$(B)/log/examples.total: $(LIBRARIES) $(B)/doppler $(DATA) $(wildcard examples/*)
	@$(STEP) $@ tools/test-examples $(MAKE) $(B)
$(B)/log/web.total: $(BUILD)/npm/package.json $(BUILD)/web/check.wasm \
	$(wildcard tests/web/* tests/web/pages/*)
	@$(STEP) $@ tests/web/run $(BUILD)/web
$(B)/log/lint.total: FORCE
	@$(STEP) $@ $(MAKE) --no-print-directory lint
$(B)/log/sanitized.total: FORCE
	@$(STEP) $@ $(MAKE) --no-print-directory SAN=address,undefined test
$(B)/log/fuzz.total: FORCE
	@$(STEP) $@ tools/fuzz-all $(SECONDS) $(FUZZERS)

ifdef T
test: $(RUNNER)
	$(RUNNER) $(T)
else
test: $(if $(SAN),,all) $(RUNNER)
	@rm -f $(call totals,$(TESTS))
	@$(MAKE) --no-print-directory -j2 $(call totals,$(TESTS))
	@$(STEP) --total $(call totals,$(TESTS))
endif

CHECKS := $(call totals,lint $(TESTS) sanitized fuzz)
check: all $(RUNNER)
	@$(MAKE) --no-print-directory -j2 $(CHECKS)
	@$(STEP) --total $(CHECKS)

lint: all $(RUNNER)
	@CC='$(CC)' FLAGS='$(COMMON) $(INCLUDES) $(DEFINES)' tools/lint $(B)

# Fuzzers need clang (gcc has no libFuzzer): tools/fuzz-all makes this with its own CC and SAN. What
# they feed is in the layers that read bytes, so the others are not compiled for them.
FUZZED_OBJ := $(call objects,$(filter src/base/% src/format/% src/text/%,$(LIB_SRC))) $(DEPS_OBJ)
$(B)/fuzz/%: $(B)/tests/fuzz/%.o $(FUZZED_OBJ)
	@mkdir -p $(@D)
	@echo '  LINK    $@'
	$(Q)$(LINK) -fsanitize=fuzzer -o $@ $^ $(LIBS)
fuzzers: $(FUZZERS:%=$(B)/fuzz/%)
fuzz:
	@tools/fuzz-all $(SECONDS) $(or $(F),$(FUZZERS))

examples: all $(B)/log/examples.total
	@$(STEP) --total $(B)/log/examples.total

bench: all
	$(BUILD)/doppler bench --profile

# --- Housekeeping --------------------------------------------------------------------------------

SOURCES = $(wildcard include/*.h src/*/*.[ch] tests/*.[ch] tests/*/*.c tools/*.c examples/*.c)
format:
	clang-format -i $(SOURCES)
sizes:
	@tools/sizes
# All of the library in one translation unit: static names stay unique, so grep finds one.
one: $(GENERATED)
	@printf '#include "%s"\n' $(abspath $(LIB_SRC)) >$(B)/one.c
	@$(CC) $(COMMON) -w $(INCLUDES) $(DEFINES) -isystem deps/webgpu \
		-DDP_WEBGPU_DIRS='""' -fsyntax-only $(B)/one.c
clean:
	rm -rf $(BUILD)

INSTALL := install -D -m
to = $(DESTDIR)$(PREFIX)
$(B)/doppler.1: $(BUILD)/doppler
	@$(BUILD)/doppler help --man >$@
install: all $(if $(PROGRAM),$(B)/doppler.1)
	$(if $(PROGRAM),$(INSTALL) 755 $(B)/doppler $(to)/bin/doppler)
	$(if $(PROGRAM),$(INSTALL) 644 $(B)/doppler.1 $(to)/share/man/man1/doppler.1)
	$(INSTALL) 644 include/doppler.h $(to)/include/doppler.h
	$(INSTALL) 644 $(B)/libdoppler.a $(to)/lib/libdoppler.a
	$(INSTALL) 755 $(B)/libdoppler.so.$(SOVERSION) $(to)/lib/libdoppler.so.$(SOVERSION)
	ln -sf libdoppler.so.$(SOVERSION) $(to)/lib/libdoppler.so
	@mkdir -p $(to)/lib/pkgconfig
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' doppler.pc.in \
		>$(to)/lib/pkgconfig/doppler.pc
	$(INSTALL) 755 deps/webgpu/libwgpu_native-release.so \
		$(to)/lib/doppler/libwgpu_native-release.so
	cd bench/prompts && find . -name '*.txt' -exec \
		$(INSTALL) 644 '{}' '$(abspath $(to))/share/doppler/prompts/{}' ';'
	cd $(BUILD)/models && find . -type f -exec \
		$(INSTALL) 644 '{}' '$(abspath $(to))/share/doppler/models/{}' ';'

-include $(wildcard $(W)/src/*/*.d $(B)/src/*/*.d $(B)/tests/*.d $(B)/tests/fuzz/*.d $(B)/gen/*.d)
