# The wasm build and the page: part of the Makefile.
#
# The library and src/web as wasm, one thread, by the clang and wasi-libc of deps/zig; check.wasm has
# the references too and is for tests. What only disks, threads or converters need is left out, and
# hashes, which the loader in web/lib has compared. For size, but for what repacks weights; tables of
# Unicode, a third of it, are packed. The compiler keeps the libc that it has built under
# build/wasm/zig.
WEB_OPTIMISE = $(if $(filter $(WEB_HOT),$(1)),-O2,-Oz)
WEB_HOT := $(patsubst %,src/%.c,format/decode format/device_rows)
W := $(BUILD)/wasm
WEB_CC = ZIG_GLOBAL_CACHE_DIR=$(abspath $(W))/zig ZIG_LOCAL_CACHE_DIR=$(abspath $(W))/zig \
	deps/zig/zig cc -target wasm32-wasi $(WEB_COMMON)
WEB_COMMON := -std=gnu11 -g0 -ffp-contract=off -fvisibility=hidden -msimd128 \
	-mbulk-memory -mnontrapping-fptoint -msign-ext -mmutable-globals -UNDEBUG
# Only what tells something of a 32-bit machine: gcc and clang-tidy see the same files.
WEB_WARNINGS := $(WARNINGS) -Wno-missing-field-initializers -Wno-string-conversion \
	-Wno-string-concatenation -Wno-enum-float-conversion
WEB_DEFINES := $(DEFINES) -Isrc/web/libc -D_WASI_EMULATED_GETPID -DYYJSON_DISABLE_WRITER=1 \
	-DYYJSON_DISABLE_UTILS=1 -DYYJSON_DISABLE_NON_STANDARD=1 -DYYJSON_DISABLE_FAST_FP_CONV=1
WEB_LINK := -mexec-model=reactor -Wl,-z,stack-size=1048576 -Wl,--max-memory=4294901760 -Wl,-s
WEB_SRC := $(filter-out src/base/out_file.c src/format/hash.c src/format/verify.c \
	src/gpu/library.c src/model/convert% src/model/tune% src/model/config_write% \
	src/text/tokenizer_write%,$(sort \
	$(wildcard $(patsubst %,src/%/*.c,base gpu format text model web))))
web_objects = $(patsubst %.c,$(W)/%.o,$(1)) $(W)/kernels_gen.o
WEB_DEPS := $(filter-out deps/utf8proc/%,$(DEPS_SRC)) $(W)/gen/utf8proc.c
WEB_CHECK := $(wildcard src/web/check*.c)
WEB_LIB_OBJ := $(call web_objects,$(filter-out $(WEB_CHECK),$(WEB_SRC)) $(WEB_DEPS))

.PHONY: web wasm
wasm: $(BUILD)/web/doppler.wasm
web: $(BUILD)/web/precache.js $(BUILD)/npm/package.json
$(BUILD)/web/precache.js: $(BUILD)/web/doppler.wasm $(PACKS) \
	$(wildcard web/lib/* web/site/* bench/prompts/*.txt)
	$(Q)web/site/publish $(BUILD)/web $(BUILD)/models/tale-8m
# The package as npm packs it: `npm pack` there. Scripts are for the tree.
WEB_LICENSES := pcre2/LICENCE.md utf8proc/LICENSE.md yyjson/LICENSE
$(BUILD)/npm/package.json: web/package.json web/README.md LICENSE $(BUILD)/web/precache.js \
	$(WEB_LICENSES:%=deps/%)
	@rm -rf $(@D) && mkdir -p $(@D)/licenses
	@cp -r $(BUILD)/web/lib $(BUILD)/web/selftest $(BUILD)/web/doppler.wasm web/README.md LICENSE $(@D)
	@for file in $(WEB_LICENSES); do cp deps/$$file $(@D)/licenses/$${file%%/*}.txt; done
	$(Q)sed '/^    "scripts"/,/^    }/d' $< >$@
$(W)/flags: FORCE | deps/stamp deps/zig/zig
	$(call remember,$(WEB_COMMON) $(value WEB_OPTIMISE) $(WEB_WARNINGS) $(INCLUDES) $(WEB_DEFINES))
$(W)/%.o: %.c $(W)/flags | $(GENERATED)
	@mkdir -p $(@D)
	@echo '  WASM    $<'
	$(Q)$(WEB_CC) $(call WEB_OPTIMISE,$<) $(WEB_DEFINES) $(INCLUDES) \
		$(if $(filter src/%,$<),$(WEB_WARNINGS),$(DEPS_FLAGS)) $(WEB_EXTRA) -MMD -MP -c $< -o $@
$(W)/src/gpu/%.o: private WEB_EXTRA := -isystem deps/webgpu
$(W)/src/ref/%.o: private WEB_EXTRA := -Wno-shorten-64-to-32# its sizes are its own
$(W)/src/web/tables.o: private WEB_EXTRA := -I$(W)/gen
$(W)/src/web/tables.o: $(W)/gen/tables_gen.h
# The tables that are packed: of utf8proc named only, of PCRE2 under names that nothing uses.
$(W)/deps/pcre2/pcre2_ucd.o: private WEB_EXTRA := $(foreach table,records stage1 stage2,\
	-D_pcre2_ucd_$(table)_8=not_packed_$(table))
$(W)/pack-tables: tools/pack-tables.c src/web/unpack_internal.h $(W)/flags
	$(Q)$(CC) -std=gnu11 -O1 -w $(INCLUDES) $(DEFINES) $(DEPS_FLAGS) $< -o $@
$(W)/gen/tables_gen.h: $(W)/pack-tables
	@mkdir -p $(@D)
	$(Q)$< >$@
$(W)/gen/utf8proc.c: deps/utf8proc/utf8proc.c
	@mkdir -p $(@D)
	@cp $< $@
	@for table in 'utf8proc_property_t utf8proc_properties' \
		'utf8proc_uint16_t utf8proc_stage1table' 'utf8proc_uint16_t utf8proc_stage2table' \
		'utf8proc_uint16_t utf8proc_sequences' 'utf8proc_uint16_t utf8proc_combinations'; do \
		echo "extern const $$table[];"; done >$(@D)/utf8proc_data.c
$(W)/kernels_gen.o: $(GEN)/kernels_gen.c $(W)/flags
	$(Q)$(WEB_CC) -Oz $(INCLUDES) $(WEB_DEFINES) -c $< -o $@
$(BUILD)/web/doppler.wasm: $(WEB_LIB_OBJ)
$(BUILD)/web/check.wasm: $(WEB_LIB_OBJ) $(call web_objects,$(REF_SRC) $(WEB_CHECK))
$(BUILD)/web/doppler.wasm $(BUILD)/web/check.wasm:
	@mkdir -p $(@D)
	@echo '  LINK    $@'
	$(Q)$(WEB_CC) -Oz $(WEB_LINK) $(sort $^) -o $@
