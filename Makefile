# Millrace. `make quickstart` shows it, `make test` proves it.

GO      ?= go
VERSION ?= 0.1.0-dev
LDFLAGS := -s -w -X github.com/millrace-io/millrace/cmd/internal/flowd.Version=$(VERSION)

.PHONY: all build quickstart test test-fast check fmt-check vet staticcheck cross mod-check faults faults-kafka faults-rocketmq chaos-delivery fuzz bench clean

all: build

build:
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/flowctl ./cmd/flowd

# A node, an embedded Kafka, a plugin, 100,000 records, and a SIGKILL half way.
quickstart: build
	bin/flowctl quickstart $(ARGS)

# Modules of their own: the kit for Go, and the example that uses it.
GO_MODULES := pdk/go examples/jt808
# And that of the bench, whose contestants need what the product does not.
BENCH := cmd/bench

# Everything: what `check` checks, and all tests with the race detector. The
# second line is what is too slow with it: part of the spec tests, thirty
# kills instead of twelve, a guest in Go, and rounds of hostile guests that put
# back 64 MiB each time; the third counts what is allocated.
test: check brokers-prepare
	$(GO) test -race -timeout 20m -skip '^($(KIT_TESTS))$$' ./...
	@for m in $(GO_MODULES) $(BENCH); do (cd $$m && GOWORK=off $(GO) test -race ./...) || exit 1; done
	$(GO) test -timeout 20m ./plugins/rewrite ./plugins/plugintest/guests ./plugins/plugintest/hostile ./cmd/internal/faulttest
	$(GO) test -run TestMemoryOfARecord ./cmd/internal/daemon

# Under a minute, for daily work.
test-fast:
	$(GO) test -short ./...
	@for m in $(GO_MODULES) $(BENCH); do (cd $$m && GOWORK=off $(GO) test -short ./...) || exit 1; done

# That a stranger's empty project can install each kit and build with it.
KIT_TESTS := TestRustCrateIsEnoughForAStranger|TestGoModuleIsEnoughForAStranger|TestASPackage
.PHONY: kit-packages
kit-packages:
	$(GO) test -run '^($(KIT_TESTS))$$' ./cmd/internal/pdktest

check: fmt-check vet staticcheck mod-check cross generate-check wasm-fixtures kit-packages

fmt-check:
	@out=$$(gofmt -l cmd cluster examples pdk plugins runtime); test -z "$$out" || { echo "not formatted (gofmt -w):"; echo "$$out"; exit 1; }

vet:
	$(GO) vet ./...
	@for m in $(GO_MODULES); do (cd $$m && GOWORK=off $(GO) vet ./... && GOWORK=off GOOS=wasip1 GOARCH=wasm $(GO) vet .) || exit 1; done
	cd $(BENCH) && GOWORK=off $(GO) vet ./...

staticcheck:
	$(GO) tool staticcheck ./...
	@check=$$($(GO) tool -n staticcheck) && cd $(BENCH) && GOWORK=off $$check ./...

mod-check:
	$(GO) mod verify >/dev/null
	$(GO) mod tidy -diff
	cd $(BENCH) && GOWORK=off $(GO) mod tidy -diff

# Packs the plugin development kits that flowctl takes along.
.PHONY: generate generate-check
generate:
	$(GO) run ./cmd/internal/packkits

generate-check:
	$(GO) run ./cmd/internal/packkits -check

# flowctl runs on more systems than flowd does.
cross:
	@for t in linux/arm64 darwin/arm64 darwin/amd64 windows/amd64; do \
	  echo "build flowctl for $$t"; \
	  GOOS=$${t%/*} GOARCH=$${t#*/} CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/flowctl || exit 1; done
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 $(GO) build -o /dev/null ./cmd/flowd

# The .wasm files beside their sources are what the sources make. Where a
# toolchain cannot be had (wasm.mk says which), this is left to CI.
.PHONY: wasm-fixtures
wasm-fixtures: wasm-check

# Long runs, not part of `make test`.
faults:
	MILLRACE_FAULT_LONG=1 $(GO) test -count=1 -v -timeout 60m ./cmd/internal/faulttest

# A hundred faults of real Kafka brokers and of the node between them.
faults-kafka: brokers-fetch
	MILLRACE_FAULT_KAFKA=100 $(GO) test -count=1 -v -timeout 60m -run 'TestRealKafka$$' ./cmd/internal/faulttest

# The same of RocketMQ's name server and broker: fifty.
faults-rocketmq: brokers-fetch
	MILLRACE_FAULT_ROCKETMQ=50 $(GO) test -count=1 -v -timeout 60m -run 'TestRocketMQ$$' ./cmd/internal/faulttest

# A million records to a partner with all troubles at once, and twenty SIGKILLs
# of the node.
chaos-delivery:
	MILLRACE_CHAOS_RECORDS=1000000 $(GO) test -count=1 -v -timeout 120m -run TestPartnerInTrouble ./cmd/internal/faulttest

FUZZTIME ?= 60s
fuzz:
	@for p in $$($(GO) list ./...); do \
	  for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz'); do \
	    echo "fuzz $$p $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$p || exit 1; done; done

# The figures of the design with their bars.
bench:
	$(GO) build -C $(BENCH) -o $(CURDIR)/bin/bench .
	bin/bench $(ARGS)

clean:
	rm -rf bin

include examples/wasm.mk
include examples/brokers.mk
