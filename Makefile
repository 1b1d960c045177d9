# Each target installs what it needs (scripts/environment.sh, python -m e2e.cluster) and says what it does.
# Caches: $XDG_CACHE_HOME/aixcoder or ~/.cache/aixcoder. `make help` lists the targets and the variables.

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test lint unit component e2e test-long bench-engine bench-replay bench-step bench-gateway bench-scaling generate images cluster-up cluster-down clean

# local: a Kubernetes made on this machine. existing: the one that KUBECONFIG names.
CLUSTER ?= local
# node-local: small images, the Python packages from this machine's disk. full: the images that a registry would hold.
IMAGES ?= node-local
# Where an existing cluster pulls its images from, such as registry.example.com/team.
IMAGE_REGISTRY ?=
# Images that another machine pushed there with `make images`; empty: they are built and pushed here.
IMAGE_TAG ?=
# Where the traces of requests lie that `make bench-scaling` plays.
TRACES ?= ../shared/autoscaling/traces
export CLUSTER IMAGES IMAGE_REGISTRY IMAGE_TAG

in_environment := @bash scripts/environment.sh python -m

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  Variables: IMAGES=node-local|full  CLUSTER=local|existing  KUBECONFIG=FILE  IMAGE_REGISTRY=HOST/PATH  IMAGE_TAG=TAG  TRACES=FOLDER"

demo: ## Bring up Kubernetes, the operator, the gateway and one model, and ask it for a completion
	$(in_environment) e2e.demo up

demo-down: ## Take away all that `make demo` made
	$(in_environment) e2e.demo down

test: ## lint, unit, component and e2e, up to the first that fails; under 30 minutes with warm caches
	$(in_environment) scripts test

lint: ## Check style, types, import layers, shell, YAML, the chart and the generated files
	$(in_environment) scripts lint

unit: ## Run the tests of what decides: no process, no network
	$(in_environment) scripts unit

component: ## Run the tests of each program against a real API server, a real engine and real clients
	$(in_environment) scripts component

e2e: ## Run the tests of everything together on a real cluster
	$(in_environment) scripts e2e

test-long: ## Run the long form of all tests: hours
	$(in_environment) scripts test-long

bench-engine: ## Measure the engine beside its peers: tokens a second at 1, 8 and 32 requests; DTYPES=float32 limits
	$(in_environment) benchmarks.engine

bench-replay: ## Measure how fast recorded typing can be replayed, beside peers with their caches on; DTYPES=float32 limits
	$(in_environment) benchmarks.replay

bench-step: ## Measure what a step of the engine costs beside the model's arithmetic
	$(in_environment) benchmarks.step

bench-gateway: ## Measure what the gateway adds to a completion and what a core of it carries, beside other routers
	$(in_environment) benchmarks.gateway

bench-scaling: ## Simulate how policies of scaling meet traces of requests, ours beside seven others; draws docs/autoscaling.svg
	$(in_environment) benchmarks.scaling.report $(TRACES) --plot docs/autoscaling.svg

generate: ## Write the generated files: the CRD, the chart's copy of it, docs/api-reference.md
	$(in_environment) scripts generate

images: ## Build the images: small ones for the local cluster; with IMAGES=full or CLUSTER=existing those of images/
	$(in_environment) e2e.demo images

cluster-up: ## Bring up the local Kubernetes alone
	$(in_environment) e2e.cluster up

cluster-down: ## Take the local Kubernetes away
	$(in_environment) e2e.cluster down

clean: ## Remove what the targets made in the checkout; the cache outside it stays
	rm -rf .venv serving/aixcoder_serving/engine/cpu/*.so
	find . -name __pycache__ -prune -exec rm -rf {} +
