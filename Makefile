# Every command that a developer or CI runs. `make help` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
# Starts one PostgreSQL for a whole test run and ends it afterwards.
TESTENV = target/debug/nemo-testenv postgres --

.PHONY: help run build test setup setup-test fmt fmt-check lint bins unit sim it it-fleet api-test sdk clients catalog-test dist bench bench-scale bench-route bench-transcode bench-cooldown bench-grants bench-ingest fuzz golden deny clean-state

help: ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: setup ## Install what is missing, build, and start the gateway with everything it needs
	@echo "Building the release binary; the first time takes some minutes."
	$(CARGO) build --release --locked -p nemo
	@exec target/release/nemo standalone $(ARGS)

setup:
	@tools/setup.sh

build: setup ## Build the release binaries
	$(CARGO) build --release --locked

test: setup-test fmt-check lint bins unit it-fleet api-test catalog-test sdk clients ## Install what the tests need and run them all
	@echo "All tests passed."

setup-test:
	@tools/test-env.sh

fmt: ## Format the code
	$(CARGO) fmt --all

fmt-check:
	$(CARGO) fmt --all -- --check

lint: ## Clippy over everything, warnings are errors; cargo-deny where it is installed
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then $(CARGO) deny --offline check bans licenses sources; fi

bins:
	$(CARGO) build --locked --workspace --bins

unit: bins ## Unit, golden and integration tests; the latter against `nemo standalone`
	NEMO_TEST_PAIRING=standalone $(TESTENV) $(CARGO) nextest run --locked --workspace

sim: ## Simulate fleets in virtual time; NEMO_SIM_STEPS=50000000 for longer, NEMO_SIM_SEED=17 for one again
	$(CARGO) nextest run --locked -p nemo-tests --test sim --no-capture

it: bins ## The integration suite alone, against `nemo standalone`
	NEMO_TEST_PAIRING=standalone $(TESTENV) $(CARGO) nextest run --locked -p nemo-tests --test it

it-fleet: bins ## The integration suite against control plane and data plane as separate processes
	NEMO_TEST_PAIRING=fleet $(TESTENV) $(CARGO) nextest run --locked -p nemo-tests --test it

api-test: setup-test bins ## The admin REST API against its OpenAPI document, by Schemathesis
	$(TESTENV) tests/schemathesis/run.sh $(ARGS)

sdk: setup-test bins ## The official OpenAI SDKs for Python and Node
	$(TESTENV) tests/sdk/run.sh

clients: setup-test bins ## SDKs of Anthropic and Google, LangChain, LlamaIndex, Vercel AI SDK, async-openai, over every dialect
	$(TESTENV) tests/sdk/clients/run.sh

catalog-test:
	python3 -m unittest discover -s tools/catalog -p 'test_*.py'

dist: ## Build what is shipped: the data plane guided by a profile of itself; takes half an hour on two cores
	@tools/setup.sh dist
	@tools/dist.sh

bench: dist ## Measure the gateway against a minimal proxy
	target/dist/nemo-bench run $(ARGS)

bench-scale: dist ## Measure with 100,000 and 1,000,000 keys, and with 10,000 open streams
	target/dist/nemo-bench scale $(ARGS)

bench-transcode: setup ## Measure what the translation of a request, an answer and an event costs
	$(CARGO) bench --locked -p nemo-llm --bench transcode --profile dist

bench-route: setup ## Measure what one routing decision costs
	$(CARGO) bench --locked -p nemo-data-plane --bench route --profile dist

bench-cooldown: setup-test dist ## Measure how fast one node's cooldown reaches another through etcd
	target/dist/nemo-bench cooldown $(ARGS)

bench-grants: setup-test ## Measure how fast slices of 10,000 budgets are granted to 50 nodes
	$(CARGO) build --locked --profile dist -p nemo-control-plane -p nemo-tests --bins
	target/dist/nemo-bench grants $(ARGS)

bench-ingest: setup-test ## Measure how fast usage events are logged and settled in PostgreSQL
	$(CARGO) build --locked --profile dist -p nemo-control-plane -p nemo-tests --bins
	target/dist/nemo-bench ingest $(ARGS)

fuzz: ## Fuzz the parsers for a minute each (needs cargo-fuzz and a nightly toolchain)
	cd tests/fuzz && for target in aws_event_stream dialect_request dialect_response dialect_stream envelope_splice form journal_recovery sse stream_observer; do \
		cargo +nightly fuzz run --fuzz-dir . $$target -- -max_total_time=60; \
	done

golden: ## Rewrite the golden outputs; look at the diff before committing it
	UPDATE_GOLDEN=1 $(CARGO) nextest run --locked -p nemo-llm --test golden --test transcode
	git diff --stat -- data-plane/llm/tests/golden
