# Rhumb: two commands do everything: `make run` (the lab) and `make test`.
# Further down: what each of them is made of.

GO      ?= go
BIN     := bin/rhumb
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
# Debian packages whose programs stand as real peers in the tests.
PEERS   := bird2 frr unbound knot-resolver nginx-light haproxy e2fsprogs curl bind9-dnsutils iproute2 nftables chromium stayrtr knot knot-dnsutils fstrm-bin dnstap-ldns prometheus
# The packages with tests that need root: all others have run with the race detector.
SCENARIOS = $(shell grep -rl --include='*_test.go' '^//go:build e2e' . | xargs -n 1 dirname | sort -u)
# The packages which have a longer form of some test.
LONG      = $(shell grep -rl --include='*_test.go' RHUMB_SOAK . | xargs -n 1 dirname | sort -u)

.PHONY: run test build deps check unit race fuzz e2e bench soak cover clean

run: build ## build, then the lab: a small internet on this machine
	@exec ./$(BIN) lab

build:
	@echo "building $(BIN) (the first build compiles about 80 modules: one to four minutes)"
	@CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/rhumb

test: deps check unit e2e ## everything, real peers included; needs root
	@echo "all tests ran"

deps: ## install what the tests need (as root), else name what is missing
	@.ci/deps $(PEERS)

check: ## format, vet, staticcheck, the rules of the tree
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "not formatted"; exit 1; }
	$(GO) vet -tags e2e ./...
	cd internal/tools && $(GO) build -o ../../bin/staticcheck honnef.co/go/tools/cmd/staticcheck
	bin/staticcheck -tags e2e ./...
	$(GO) test ./internal/house

unit: ## unit tests, oracles, scripts and fuzz seeds, with the race detector
	$(GO) test -race -timeout 15m $$($(GO) list ./... | grep -v internal/house)
	cd internal/tools && $(GO) test ./...

race: unit

e2e: build ## scenarios with real peers in network namespaces
	RHUMB_BIN=$(CURDIR)/$(BIN) $(GO) test -tags e2e -count 1 -p 1 -timeout 25m $(SCENARIOS)

fuzz: ## ten seconds for each fuzz target
	@.ci/fuzz 10s

bench: build ## Go benchmarks, replies side by side with NSD and Knot, what protection costs (as root)
	$(GO) test -run xxx -bench . -benchmem ./...
	@.ci/bench-dns
	@.ci/bench-edge

soak: build ## hours: the same scenarios with more rounds, longer fuzzing
	@.ci/deps nsd bind9 dnsviz zonemaster-cli ldnsutils
	RHUMB_SOAK=1 RHUMB_BIN=$(CURDIR)/$(BIN) $(GO) test -tags e2e -count 1 -p 1 -timeout 8h $(sort $(SCENARIOS) $(LONG))
	@.ci/fuzz 5m

cover:
	$(GO) test -coverprofile bin/cover.out ./... && $(GO) tool cover -func bin/cover.out | tail -1

clean:
	rm -rf bin .lab
