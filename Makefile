# `make help` lists what there is. Everything lives in .venv; nothing else on the machine is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-ssh demo-slurm test test-quick chaos lab lock clean

help: ## list these commands
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## set up .venv: Python packages, CPU or GPU torch, the demo's model

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version). Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
		{ echo "This Python cannot make environments. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -c 'import platform as p, sys; mac = p.mac_ver()[0]; \
		sys.exit(bool(mac) and (p.machine() != "arm64" or int(mac.split(".")[0]) < 14))' || \
		{ echo "A Mac that encodes needs Apple silicon and macOS 14 (there is no torch for others). See README."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[worker,demo,test]'
	@touch $@

# What to install first, so that the right build of torch is there before anything asks for it (see README).
TORCH ?= torch==2.13.0

demo: $(VENV)/.ready ## embed the demo corpus through the four notebooks; ends with the path of report.html
	$(BIN)/runbook run profiles/demo.yaml

demo-ssh: $(VENV)/.ready ## the same over SSH: two OpenSSH servers on this machine, started for the demo
	@test "$$(id -u)" != 0 || $(BIN)/python demo/fleet.py install
	$(BIN)/python demo/fleet.py up runs/fleet --mode loopback -- $(BIN)/runbook run profiles/ssh_demo.yaml \
		--set hosts.tensor01.environment=$(CURDIR)/$(BIN)/python --set hosts.tensor02.environment=$(CURDIR)/$(BIN)/python

demo-slurm: $(VENV)/.ready ## the same on a cluster: a real Slurm of two nodes on this machine, started for the demo (root)
	@$(BIN)/python demo/slurm.py install
	$(BIN)/python demo/slurm.py up runs/slurm -- $(BIN)/runbook run profiles/slurm_demo.yaml

# Test files at a time: most of them wait for processes. A file stays together, as it shares what is dear to set up.
JOBS ?= 4

# Both leave out nbval, which each process would import: the test of the notebooks has it in a pytest of its own.
test-quick: $(VENV)/.ready ## ruff, and the tests that start no process
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -p no:nbval -n $(JOBS) --dist worksteal tests/unit \
		-m "not process and not kernel and not ssh and not browser and not slurm and not chaos"

test: $(VENV)/.ready ## ruff, mypy, all tests, the notebooks with their default parameters
	@test "$$(id -u)" != 0 || $(BIN)/python demo/fleet.py install || echo "Tests over SSH will be skipped."
	@test "$$(id -u)" != 0 || $(BIN)/python demo/slurm.py install || echo "Tests on a Slurm will be skipped."
	@$(BIN)/python tests/helpers/browser.py install || echo "Tests in a browser will be skipped."
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(BIN)/mypy --platform linux --cache-dir .mypy_cache/linux & linux=$$!; \
		$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin; darwin=$$?; wait $$linux && exit $$darwin
	$(BIN)/python -m pytest -p no:nbval -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=30

# How many seeds, and which tier: A local hosts and a light encoder, B two OpenSSH hosts, C the real model.
SEEDS ?= 100-105
TIER ?= A

chaos: $(VENV)/.ready ## kill, cut, damage at random and count the rows: SEEDS=100-199 TIER=A
	$(BIN)/python -m tests.chaos --seeds $(SEEDS) --tier $(TIER)

lab: $(VENV)/.ready ## open copies of the notebooks in JupyterLab, set to the demo
	$(BIN)/runbook lab profiles/demo.yaml

lock: $(VENV)/.ready ## make constraints.txt anew, for all platforms
	echo 'torch==2.13.0' > $(VENV)/pins.txt  # one torch for all, tried with the rest; move it on purpose only
	$(BIN)/uv pip compile --universal --python-version 3.11 --all-extras --no-header --no-annotate --constraint $(VENV)/pins.txt pyproject.toml -o constraints.txt

clean: ## remove .venv and caches; runs/ and embeddings/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache *.egg-info
