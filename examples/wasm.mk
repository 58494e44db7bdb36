# Guests: .wasm files that are kept beside their sources. The bytes are the
# same wherever they are built, so that wasm-check can compare them.
#
# WASM_LANGS are the languages that are built: by default those whose toolchain
# can be had here. With CI=true that is all of them.

WASM_OUT        ?= $(CURDIR)/.toolchains/target
WASM_TOOLCHAIN  ?= $(CURDIR)/.toolchains/rust-wasm
WASM_TINYGO     ?= $(CURDIR)/.toolchains/tinygo
WASM_ASC        ?= $(CURDIR)/.toolchains/assemblyscript

WASM_GUESTS     := examples/orders examples/upper examples/lines examples/mask examples/csv plugins/plugintest/guests/faulty plugins/plugintest/guests/wasi plugins/plugintest/guests/conformance plugins/plugintest/guests/mutant plugins/plugintest/guests/copy plugins/plugintest/guests/sign plugins/plugintest/guests/check \
  pdk/rust/examples/order_stage pdk/rust/examples/outcomes pdk/rust/examples/conformance_rust
WASM_C_GUESTS   := examples/frame-c plugins/plugintest/guests/pass plugins/plugintest/guests/versions plugins/plugintest/guests/orders-c plugins/plugintest/guests/orders-extism
WASM_AS_GUESTS  := examples/mapping pdk/assemblyscript/examples/order_stage_as pdk/assemblyscript/examples/conformance_as pdk/assemblyscript/examples/outcomes_as plugins/plugintest/guests/orders-as
WASM_TGO_GUESTS := examples/jt808 pdk/go/examples/order_stage_go pdk/go/examples/conformance_go plugins/plugintest/guests/orders-tinygo

# Per Rust guest: the target, and flags beside the common ones.
wasm_target_lines := wasm32-wasip1
wasm_target_csv   := wasm32-wasip1
wasm_target_wasi  := wasm32-wasip1
wasm_target_copy  := wasm32-wasip1
wasm_flags_orders := -Ctarget-feature=+simd128
# Guests outside of the kit's folder that use it are built by way of a link that
# lies in the same place everywhere: cargo makes the names of symbols, and so
# their order, out of the path of a crate that is not below the guest's root.
WASM_SRC          ?= /tmp/millrace-wasm-src
wasm_linked_guests := mask sign check order_stage outcomes conformance_rust
wasm_root          = $(if $(filter $(notdir $*),$(wasm_linked_guests)),$(WASM_SRC),$(CURDIR))
wasm_remap_linked := --remap-path-prefix=$(WASM_SRC)/pdk/rust=millrace-pdk
wasm_flags_order_stage      := -Ctarget-feature=+simd128 $(wasm_remap_linked)
wasm_flags_outcomes         := $(wasm_remap_linked)
wasm_flags_conformance_rust := $(wasm_remap_linked)
wasm_flags_mask             := -Ctarget-feature=+simd128 $(wasm_remap_linked)
wasm_flags_sign             := $(wasm_remap_linked)
wasm_flags_check            := $(wasm_remap_linked)

# The manifest of guests whose compiler cannot embed it; - is the one that the
# guest declares in its code.
wasm_manifest_frame-c       := examples/frame-c/manifest.json
wasm_manifest_mapping        := -
wasm_manifest_order_stage_as := -
wasm_manifest_conformance_as := -
wasm_manifest_outcomes_as    := -
wasm_manifest_orders-c      := examples/orders/manifest.json
wasm_manifest_orders-as     := examples/orders/manifest.json
wasm_manifest_orders-tinygo := examples/orders/manifest.json
wasm_manifest_jt808          := -
wasm_manifest_order_stage_go := -
wasm_manifest_conformance_go := -

wasm_all := rust c as tinygo
ifeq ($(CI),true)
WASM_LANGS := $(wasm_all)
endif
ifeq ($(origin WASM_LANGS),undefined)
WASM_LANGS := $(shell [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo rust c tinygo; \
  command -v npm >/dev/null && [ "$$(node --version | sed 's/^v//; s/[.].*//')" -ge 20 ] 2>/dev/null && echo as)
endif
wasm_left := $(filter-out $(WASM_LANGS),$(wasm_all))
wasm_guests := $(if $(filter rust,$(WASM_LANGS)),$(WASM_GUESTS)) $(if $(filter c,$(WASM_LANGS)),$(WASM_C_GUESTS)) \
  $(if $(filter as,$(WASM_LANGS)),$(WASM_AS_GUESTS)) $(if $(filter tinygo,$(WASM_LANGS)),$(WASM_TGO_GUESTS))

.PHONY: toolchains wasm wasm-build wasm-check $(addprefix wasm-build/,$(WASM_GUESTS) $(WASM_C_GUESTS) $(WASM_AS_GUESTS) $(WASM_TGO_GUESTS))

# Installs the toolchains of the guests; does nothing when they are there. What
# an older Rust built is thrown away: cargo does not see that std is new.
toolchains:
	@mkdir -p "$(CURDIR)/.toolchains" && echo '*' > "$(CURDIR)/.toolchains/.gitignore"
ifneq (,$(filter rust,$(WASM_LANGS)))
	PREFIX="$(WASM_TOOLCHAIN)" TARGETS="wasm32-unknown-unknown wasm32-wasip1" bash pdk/toolchains/rust.sh
	@test "$(WASM_OUT)/.made" -nt "$(WASM_TOOLCHAIN)/.done" || { rm -rf $(foreach g,$(WASM_GUESTS),"$(WASM_OUT)/$(notdir $g)"); mkdir -p "$(WASM_OUT)"; touch "$(WASM_OUT)/.made"; }
endif
ifneq (,$(filter c,$(WASM_LANGS)))
	bash pdk/toolchains/c.sh
endif
ifneq (,$(filter tinygo,$(WASM_LANGS)))
	PREFIX="$(WASM_TINYGO)" bash pdk/toolchains/tinygo.sh
endif
ifneq (,$(filter as,$(WASM_LANGS)))
	PREFIX="$(WASM_ASC)" LOCK=plugins/plugintest/guests/orders-as bash pdk/toolchains/assemblyscript.sh
endif
ifneq (,$(wasm_left))
	@echo "toolchains left out: $(wasm_left) (rust, c and tinygo need Debian and root, as needs Node 20; CI=true leaves out nothing)"
endif

# Rebuilds every guest and puts it beside its source.
wasm: wasm-build
	@for g in $(wasm_guests); do n=$${g##*/}; install -m 644 "$(WASM_OUT)/guests/$$n.wasm" "$$g/$$n.wasm" || exit 1; done

# Rebuilds every guest elsewhere and fails if one differs from what is committed.
wasm-check: wasm-build
	@for g in $(wasm_guests); do n=$${g##*/}; \
	  cmp "$(WASM_OUT)/guests/$$n.wasm" "$$g/$$n.wasm" || { echo "$$g/$$n.wasm is not what its source makes: run make wasm" >&2; exit 1; }; done

wasm-build: $(addprefix wasm-build/,$(wasm_guests))

# What the recipes below make becomes NAME.wasm in guests/.
wasm_bin   = $(WASM_OUT)/guests/$(notdir $*).wasm
wasm_embed = $(if $(wasm_manifest_$(notdir $*)),$(GO) run ./plugins/plugintest/guests/addmanifest "$(wasm_bin)" $(wasm_manifest_$(notdir $*)) "$(wasm_bin)")

wasm_triple = $(or $(wasm_target_$(notdir $*)),wasm32-unknown-unknown)
$(addprefix wasm-build/,$(WASM_GUESTS)): wasm-build/%: toolchains
	@mkdir -p "$(WASM_OUT)/guests"
	$(if $(filter $(WASM_SRC),$(wasm_root)),ln -sfn "$(CURDIR)" $(WASM_SRC))
	cd $* && unset CARGO_ENCODED_RUSTFLAGS RUSTC RUSTC_WRAPPER CARGO_BUILD_TARGET && \
	  RUSTFLAGS="-Ctarget-feature=+bulk-memory -Clink-arg=-zstack-size=65536 $(wasm_flags_$(notdir $*)) --remap-path-prefix=$(wasm_root)/$*=." CARGO_TARGET_DIR="$(WASM_OUT)/$(notdir $*)" \
	  PATH="$(WASM_TOOLCHAIN)/bin:$$PATH" cargo build --manifest-path "$(wasm_root)/$*/Cargo.toml" --release --locked --offline --quiet --target $(wasm_triple)
	@cp "$(WASM_OUT)/$(notdir $*)/$(wasm_triple)/release/$(notdir $*).wasm" "$(wasm_bin)"

# Two steps, the link without -O: with it clang runs whatever wasm-opt is there.
$(addprefix wasm-build/,$(WASM_C_GUESTS)): wasm-build/%: toolchains
	@mkdir -p "$(WASM_OUT)/guests"
	cd $* && clang-19 --target=wasm32 -std=c17 -O3 -mbulk-memory -ffreestanding -Wall -Wextra -Werror -c -o "$(wasm_bin).o" *.c
	clang-19 --target=wasm32 -nostdlib -Wl,--no-entry -Wl,--strip-all -Wl,-z,stack-size=16384 -o "$(wasm_bin)" "$(wasm_bin).o"
	@$(wasm_embed)

# Those with the kit find it as @millrace/pdk below as/.
wasm_as_kit   := --enable simd --path "$(WASM_OUT)/as" --use ASC_GC_GRANULARITY=131072 --use abort=~lib/@millrace/pdk/assembly/index/abort
wasm_as_flags  = $(if $(filter orders-as,$(notdir $*)),--noAssert --use abort=,$(wasm_as_kit))
$(addprefix wasm-build/,$(WASM_AS_GUESTS)): wasm-build/%: toolchains
	@mkdir -p "$(WASM_OUT)/guests" "$(WASM_OUT)/as/@millrace"
	@ln -sfn "$(CURDIR)/pdk/assemblyscript" "$(WASM_OUT)/as/@millrace/pdk"
	cd $* && "$(WASM_ASC)/bin/asc" assembly/index.ts -o "$(wasm_bin)" -O3 --runtime incremental --exportStart _initialize $(wasm_as_flags)
	@$(wasm_embed)

# LLVM 19 does not know two features that TinyGo names, and says so each time.
$(addprefix wasm-build/,$(WASM_TGO_GUESTS)): wasm-build/%: toolchains
	@mkdir -p "$(WASM_OUT)/guests"
	cd $* && { GOWORK=off GOFLAGS=-mod=mod "$(WASM_TINYGO)/bin/tinygo" build -o "$(wasm_bin)" -target=wasip1 -buildmode=c-shared -scheduler=none -opt=2 -no-debug . 2>&1 || echo "tinygo: no module"; } | \
	  { ! grep -v 'is not a recognized feature'; }
	@$(wasm_embed)
