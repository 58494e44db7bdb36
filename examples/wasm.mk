# Guests: built with one Rust toolchain, kept beside their source. The bytes
# are the same wherever they are built, so that wasm-check can compare them.

WASM_TOOLCHAIN ?= $(CURDIR)/.toolchains/rust-wasm
WASM_CARGO     := PATH="$(WASM_TOOLCHAIN)/bin:$$PATH" cargo
WASM_OUT       ?= $(CURDIR)/.toolchains/target
WASM_GUESTS    := examples/orders examples/upper examples/lines plugins/plugintest/guests/faulty plugins/plugintest/guests/wasi

# Per guest: the target, and flags beside the common ones.
wasm_target_lines := wasm32-wasip1
wasm_target_wasi  := wasm32-wasip1
wasm_flags_orders := -Ctarget-feature=+simd128

.PHONY: toolchains wasm wasm-check $(addprefix wasm-build/,$(WASM_GUESTS))

# Installs the Rust toolchain of the guests; does nothing when it is there.
# What an older one built is thrown away: cargo does not see that std is new.
toolchains:
	@mkdir -p "$(CURDIR)/.toolchains" && echo '*' > "$(CURDIR)/.toolchains/.gitignore"
	PREFIX="$(WASM_TOOLCHAIN)" TARGETS="wasm32-unknown-unknown wasm32-wasip1" bash pdk/toolchains/rust.sh
	@test "$(WASM_OUT)/.made" -nt "$(WASM_TOOLCHAIN)/.done" || { rm -rf $(foreach g,$(WASM_GUESTS),"$(WASM_OUT)/$(notdir $g)"); mkdir -p "$(WASM_OUT)"; touch "$(WASM_OUT)/.made"; }

# Rebuilds every guest and puts it beside its source.
wasm: $(addprefix wasm-build/,$(WASM_GUESTS))
	@for g in $(WASM_GUESTS); do n=$${g##*/}; install -m 644 "$(WASM_OUT)/guests/$$n.wasm" "$$g/$$n.wasm" || exit 1; done

# Rebuilds every guest elsewhere and fails if one differs from what is committed.
wasm-check: $(addprefix wasm-build/,$(WASM_GUESTS))
	@for g in $(WASM_GUESTS); do n=$${g##*/}; \
	  cmp "$(WASM_OUT)/guests/$$n.wasm" "$$g/$$n.wasm" || { echo "$$g/$$n.wasm is not what its source makes: run make wasm" >&2; exit 1; }; done

$(addprefix wasm-build/,$(WASM_GUESTS)): wasm-build/%: toolchains
	@mkdir -p "$(WASM_OUT)/guests"
	cd $* && unset CARGO_ENCODED_RUSTFLAGS RUSTC RUSTC_WRAPPER CARGO_BUILD_TARGET && \
	  RUSTFLAGS="-Ctarget-feature=+bulk-memory -Clink-arg=-zstack-size=65536 $(wasm_flags_$(notdir $*)) --remap-path-prefix=$(CURDIR)/$*=." \
	  CARGO_TARGET_DIR="$(WASM_OUT)/$(notdir $*)" $(WASM_CARGO) build --release --locked --offline --quiet --target $(or $(wasm_target_$(notdir $*)),wasm32-unknown-unknown)
	@cp "$(WASM_OUT)/$(notdir $*)/$(or $(wasm_target_$(notdir $*)),wasm32-unknown-unknown)/release/$(notdir $*).wasm" "$(WASM_OUT)/guests/"
