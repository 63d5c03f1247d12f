# Everything is installed into .venv and fetched into build/; `make clean` removes both.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help setup setup-dev demo test lint format kafka bench profile peers chaos faults fuzz soak models lock docs dashboards dashboards-check prometheus chromium kcat pictures sbom clean

BIN := .venv/bin
ARGS ?=
KILLS ?= 100
RATE ?= 20000
DELIVERY ?= at_least_once
SEED ?=
HOURS ?= 1
CYCLONEDX_VERSION := 7.5.0
N ?= 1000000
UV_VERSION := 0.13.9
KAFKA_LIBS := build/kafka/libs
export PYTHONUNBUFFERED := 1

# pip's own lines, one for each wheel that it downloads, so that a slow line is seen to move.
PIP := $(BIN)/pip --disable-pip-version-check install
PROGRESS := awk '/Downloading|Installing collected/ { print "    " substr($$0, 1, 100); fflush() }'

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: .venv/.compiled ## install what running needs into .venv and compile the kernels (no torch)

setup-dev: .venv/.dev setup ## add what training and the tests need (torch among it)

demo: setup ## embedded broker, worker and a replay of real trades with a live board; options in ARGS="..."
	@$(BIN)/tapewatch demo $(ARGS)

test: setup-dev kafka prometheus chromium kcat lint ## what CI runs: format, lint, types and all tests, on a real Kafka
	@OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist worksteal $(ARGS)

lint: .venv/.dev ## ruff format --check, ruff check, mypy --strict
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy

format: .venv/.dev ## rewrite the code as `make lint` wants it
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

bench: setup-dev kafka peers ## throughput and latency on a real Kafka, all parts; ARGS="latency burst --runs 3 --json FILE"
	@$(BIN)/tapewatch bench $(ARGS)

profile: setup-dev kafka ## where a worker's time goes: docs/performance/flame.svg; ARGS="--ticks 1000000 --seconds 6"
	@$(BIN)/python -m tests.benchmark.profile $(ARGS)

peers: build/peers/.installed ## install Quix Streams and Bytewax, which the benchmark compares with, into an environment of their own

chaos: setup-dev kafka ## faults under load, then the verdict; KILLS=100 RATE=20000 DELIVERY=at_least_once SEED=
	@$(BIN)/python -m tests.chaos --kills $(KILLS) --rate $(RATE) --delivery $(DELIVERY) $(if $(SEED),--seed $(SEED)) $(ARGS)

faults: setup-dev kafka ## the longer tests of what brokers can do: three of them, full disks (root), deleted topics
	@$(BIN)/pytest -m faults $(ARGS)

fuzz: setup-dev ## N=1000000 odd inputs for the pipeline: each answered or refused, none lost, no crash
	@$(BIN)/python -m tests.fuzz --inputs $(N) $(ARGS)

soak: setup-dev kafka ## 5,000 ticks/s for HOURS=1, and whether memory, files or latency grow
	@$(BIN)/python -m tests.soak --hours $(HOURS) $(ARGS)

models: .venv/.dev ## train the bundles in models/ again
	@$(BIN)/tapewatch train all $(ARGS)

docs: .venv/.dev ## write what is made from code (asyncapi.yaml, docs/topics.md, ...), and the site into build/site
	@$(BIN)/python -m stream.asyncapi
	@$(BIN)/python -m stream.metrics
	@$(BIN)/python -m docs

dashboards: .venv/.dev ## write grafana/dashboards/*.json again from the code
	@$(BIN)/python -m grafana

dashboards-check: setup-dev prometheus ## every panel and rule, asked of Prometheus over a worker; ARGS="--seconds 90 --speed 30"
	@promtool check config prometheus/prometheus.yml
	@promtool check rules prometheus/rules/*.yml
	@promtool test rules prometheus/tests/alerts.yml
	@$(BIN)/python -m grafana.check --pictures build/dashboards $(ARGS)

# The tests that need it are skipped, with this reason, where it cannot be had. Under systemd the package would start a
# server for all the network to see, so there it is left to the user.
prometheus: ## install Debian's Prometheus if it is missing, where we may (root, apt-get, no systemd: a container)
	@command -v prometheus promtool >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && [ ! -d /run/systemd/system ] && command -v apt-get >/dev/null; then \
	    echo "==> installing prometheus"; \
	    apt-get install -y -qq prometheus >/dev/null || { apt-get update -qq && apt-get install -y -qq prometheus >/dev/null; }; \
	  else echo "Prometheus is missing: install it (Debian, Ubuntu: apt install prometheus;" \
	    "macOS: brew install prometheus); the tests of dashboards and alerts are skipped without it" >&2; fi; }

# The tests of the board in the browser are skipped, with this reason, where it cannot be had.
chromium: ## install Debian's Chromium if it is missing, where we may (root, apt-get)
	@for program in chromium chromium-headless-shell chromium-browser google-chrome; do \
	  command -v "$$program" >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "==> installing chromium"; \
	  install="env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core"; \
	  $$install >/dev/null || { apt-get update -qq && $$install >/dev/null; }; \
	else echo "Chromium is missing: install it (Debian: apt install chromium);" \
	  "the tests of the board in the browser are skipped without it" >&2; fi

# The test of the example with it is skipped, with this reason, where it cannot be had.
kcat: ## install Debian's kcat if it is missing, where we may (root, apt-get)
	@command -v kcat >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    echo "==> installing kcat"; \
	    apt-get install -y -qq kcat >/dev/null || { apt-get update -qq && apt-get install -y -qq kcat >/dev/null; }; \
	  else echo "kcat is missing: install it (Debian, Ubuntu: apt install kcat; macOS: brew install kcat);" \
	    "the test of the example with it is skipped without it" >&2; fi; }

pictures: setup-dev chromium ## take the pictures of the board in docs/images again
	@$(BIN)/python -m tests.browser $(ARGS)

sbom: .venv/bin/python ## what is in the images, from the lock files, as CycloneDX in build/sbom
	@$(PIP) --quiet cyclonedx-bom==$(CYCLONEDX_VERSION)
	@mkdir -p build/sbom
	@$(BIN)/cyclonedx-py requirements requirements/runtime.txt --pyproject pyproject.toml -o build/sbom/worker.cdx.json
	@$(BIN)/cyclonedx-py requirements requirements/dev.txt --pyproject pyproject.toml -o build/sbom/trainer.cdx.json

lock: .venv/bin/python ## choose the newest versions that pyproject.toml allows, and write requirements/*.txt
	@$(PIP) --quiet uv==$(UV_VERSION)
	@$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --no-header pyproject.toml \
	  -o requirements/runtime.txt
	@$(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 --no-header pyproject.toml \
	  --extra training --extra dev -c requirements/runtime.txt -o requirements/dev.txt
	@grep -v '^confluent-kafka' requirements/runtime.txt | $(BIN)/uv pip compile --quiet --upgrade --python-version 3.11 \
	  --no-header requirements/peers.in -c - -o requirements/peers.txt

clean: ## remove .venv, build/ and every cache
	rm -rf .venv build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find stream training grafana tests -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@python=; for candidate in python3.11 python3; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; \
	  then python="$$candidate"; break; fi; done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 is missing: install it (Debian, Ubuntu: apt install python3.11 python3.11-venv;" \
	    "macOS: brew install python@3.11; else https://www.python.org/downloads/)" >&2; exit 1; fi; \
	echo "==> making .venv with $$("$$python" --version)"; \
	"$$python" -m venv .venv || { rm -rf .venv; \
	  echo "$$python cannot make a virtual environment: install its venv module" \
	    "(Debian, Ubuntu: apt install python3.11-venv)" >&2; exit 1; }

.venv/.installed: requirements/runtime.txt pyproject.toml | .venv/bin/python
	@echo "==> installing what running needs into .venv"
	@$(PIP) -r requirements/runtime.txt | $(PROGRESS)
	@$(PIP) --quiet --no-deps -e .
	@touch $@

# Quix Streams asks for confluent-kafka below 2.13, so it cannot stand beside our locks.
build/peers/.installed: requirements/peers.txt .venv/bin/python
	@echo "==> installing the peers of the benchmark into build/peers"
	@.venv/bin/python -m venv build/peers
	@build/peers/bin/pip --disable-pip-version-check install -r requirements/peers.txt | $(PROGRESS)
	@touch $@

.venv/.dev: requirements/dev.txt .venv/.installed
	@echo "==> installing what training and the tests need into .venv (torch: minutes on a slow line)"
	@$(PIP) -r requirements/dev.txt | $(PROGRESS)
	@touch $@

# The machine code is kept in stream/core/__pycache__, in a folder named after the text of all kernels, so a change is
# never missed; this only saves the first start the wait.
.venv/.compiled: .venv/.installed $(wildcard stream/core/*.py)
	@echo "==> compiling the kernels"
	@$(BIN)/tapewatch compile
	@touch $@

ifdef KAFKA_HOME
kafka: .java ## fetch Apache Kafka's jars into build/kafka (nothing to do where KAFKA_HOME names an installation)
	@test -d "$(KAFKA_HOME)/libs" || { echo "KAFKA_HOME=$(KAFKA_HOME) holds no libs/: name the folder of an" \
	  "unpacked Apache Kafka 4, or unset it to fetch one" >&2; exit 1; }
else
kafka: .java $(KAFKA_LIBS)/.fetched
endif

.PHONY: .java
.java:
	@version=$$(java -XshowSettings:properties -version 2>&1 | awk '/java.specification.version/ { print $$3 }' || true); \
	if [ -z "$$version" ] || [ "$${version%%.*}" -lt 17 ]; then \
	  echo "Java 17 or newer is missing (found: $${version:-none}); Kafka runs on it: install it" \
	    "(Debian, Ubuntu: apt install openjdk-17-jre-headless; macOS: brew install openjdk@17)" >&2; exit 1; fi

# Maven resets the colour at its end even where it was told to use none.
$(KAFKA_LIBS)/.fetched: docker/kafka/pom.xml
	@command -v mvn >/dev/null || { echo "mvn is missing: install Maven (Debian, Ubuntu: apt install maven;" \
	  "macOS: brew install maven), or set KAFKA_HOME to an unpacked Apache Kafka 4" >&2; exit 1; }
	@echo "==> fetching Apache Kafka into $(KAFKA_LIBS)"
	@rm -rf $(KAFKA_LIBS)
	@mvn --batch-mode -Dstyle.color=never -q -f docker/kafka/pom.xml dependency:copy-dependencies -DincludeScope=runtime \
	  -DoutputDirectory=$(CURDIR)/$(KAFKA_LIBS) 2>&1 | sed $$'s/\033\\[[0-9;]*m//g' >&2
	@touch $@
