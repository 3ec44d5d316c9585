# Every target sets up what it needs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GUEST := env PYTHONPATH=vagrant $(PYTHON) -m cgmem_guest
CODE := cgmem backends tests vagrant bench examples hatch_build.py

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

.PHONY: demo
demo: $(VENV)/.installed ## run a leaking program under a 64 MB budget and look at what was logged
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

.PHONY: test
test: test-host test-guest ## everything: this host, then real kernels in guests

.PHONY: test-host
test-host: lint unit package ## what runs on this host

.PHONY: lint
lint: $(VENV)/.dev ## ruff, mypy (Linux and macOS), import directions, shell scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CODE)
	$(BIN)/mypy --platform darwin $(CODE)
	$(BIN)/lint-imports
	sh tests/scripts.sh $(BIN)/shellcheck

.PHONY: unit
unit: $(VENV)/.dev ## unit, contract and CLI tests
	$(BIN)/python -m pytest -q tests/unit tests/contract tests/cli tests/spec

.PHONY: package
package: $(VENV)/.dev ## build sdist, wheel from it, and run the wheel from an empty venv
	sh tests/package.sh $(BIN)/python

.PHONY: test-guest
test-guest: ## kernel and contract tests on real cgroup v2 (Debian 13, Debian 12, no systemd)
	@if [ "$$(uname -s)" = Linux ]; then exec $(GUEST) test; \
	else echo "test-guest: not run: the guests need a Linux host (see CONTRIBUTING.md)"; fi

.PHONY: test-matrix
test-matrix: ## every kernel, swap, huge pages and PSI, and the long kernel tests (an hour)
	$(GUEST) test --matrix

.PHONY: chaos
chaos: ## misbehaving subprocesses and faults on a real kernel, for ten minutes
	$(GUEST) run --guest debian13 --timeout 1500 -- python3 -m tests.chaos --seconds 600

.PHONY: test-native
test-native: $(VENV)/.dev ## the kernel tests on this host's own cgroup v2
	sh tests/native.sh $(BIN)/python

.PHONY: vagrant-box
vagrant-box: ## build the box for vagrant/Vagrantfile and say how to use it (Linux on x86-64)
	@$(GUEST) box

.PHONY: vagrant-test
vagrant-test: ## Vagrant's guest from nothing to destroyed, tests in it (Debian; long)
	@$(GUEST) cycle

.PHONY: bench
bench: $(VENV)/.bench ## measure side by side with the alternatives: in a Debian 13 guest, and here
	$(GUEST) run --guest bench --count --timeout 5400 --results bench/results/counted -- \
	  python3 -m bench --counted --name counted command spawn parts tick footprint slowdown
	$(GUEST) run --guest bench --timeout 5400 --results bench/results/guest -- \
	  python3 -m bench --name debian13
	$(BIN)/python -m bench --name host command spawn overshoot peaks agents
	cp bench/results/guest/debian13.* bench/results/counted/counted.* bench/results/
	$(BIN)/python -m bench.pictures bench/results/debian13.json bench/results/counted.json

.PHONY: clean
clean: ## remove what make made here (guest images stay in the cache)
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

# Debian keeps venv in a package of its own; it is installed when root or sudo can do it.
$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  package=$$($(PYTHON) -c 'import sys; print(f"python3.{sys.version_info[1]}-venv")'); \
	  if ! command -v apt-get >/dev/null; then \
	    echo "cgmem: $(PYTHON) has no venv module: install it and run make again" >&2; exit 1; fi; \
	  if [ "$$(id -u)" = 0 ]; then sudo=; \
	  elif sudo -n true 2>/dev/null; then sudo=sudo; \
	  else echo "cgmem: run this and then make again: sudo apt-get install $$package" >&2; exit 1; fi; \
	  $$sudo apt-get -q update && $$sudo apt-get -qy install $$package && $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip -q install --upgrade pip

$(VENV)/.installed: pyproject.toml $(VENV)/bin/python
	@$(BIN)/python -m pip -q install -e .
	@touch $@

$(VENV)/.bench: $(VENV)/.dev
	@$(BIN)/python -m pip -q install --group bench
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	@$(BIN)/python -m pip -q install -e '.[all]' --group test --group lint --group build
	@touch $@
