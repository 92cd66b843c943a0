# Every target fetches what it needs and says what it installs; `make` alone lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo demo-down test e2e bench lint type generate verify images clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Real Kubernetes, both charts, all five tasks, real answers; leaves everything running
	@scripts/demo up $(DEMO_ARGS)

demo-down: ## Remove everything that `make demo` started
	@scripts/demo down $(DEMO_ARGS)

test: ## Unit, integration and inference tests against real parts (make test PARTS="gateway vision" for some)
	@scripts/test $(PARTS)

e2e: ## Bring the demo up on a cluster of its own, assert its answers, inject faults, take it down
	@scripts/test e2e

bench: ## Speed and memory figures, with their method (make bench PARTS="gateway" for some)
	@scripts/bench $(PARTS)

lint: ## Style, imports between layers, shell scripts
	@scripts/check lint

type: ## Static types, strict, in the environment of each part
	@scripts/check type

generate: ## Rewrite generated files: CRDs, API reference, chart documentation and schemas
	@scripts/generate

verify: ## Lint, types, and a failure if any generated file is stale
	@scripts/check lint type generated

images: ## Build the container images (make images ARGS="--cuda --push registry.example.com/team")
	@scripts/images $(ARGS)

clean: ## Remove environments and outputs from the checkout (the cache outside stays; `scripts/clean --cache` removes it too)
	@scripts/clean
