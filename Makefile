# Everything a newcomer needs: `make demo` and `make test` set up .venv by themselves.

PYTHON ?= python3
BIN := .venv/bin
GPU_PYTHON ?= $(if $(wildcard .venv/bin/python),.venv/bin/python,$(PYTHON))

# Threads that wait for each other sleep instead of spinning: on a shared machine the tests take a third of the time.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help demo test test-gpu check fix bench gpu-check gpu-1 gpu-2 gpu-3 clean

help: ## list these verbs
	@grep -hE '^[a-z0-9 -]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: .venv/users ## get Fashion-MNIST, train on it, test it, write demo/report.html; it says first how long it takes
	@$(BIN)/alexnet demo --out demo
	@echo "To have \`alexnet\` in this shell: source .venv/bin/activate" >&2

test: .venv/developers ## check everything
	@$(BIN)/pytest

test-gpu: .venv/developers ## check what needs a GPU, on one
	@$(BIN)/python -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "test-gpu needs a CUDA device, and PyTorch sees none here: `make test` checks the rest.")'
	@$(BIN)/pytest -m gpu

check: .venv/developers ## lint, format, types, layers and the house's rules, without changing a file
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports && $(BIN)/pytest -q tests/test_house.py

fix: .venv/developers ## rewrite what ruff can
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

bench: .venv/developers ## time training, inference and preparing against their peers
	@$(BIN)/python benchmarks/train_cpu.py && $(BIN)/python benchmarks/infer_cpu.py && $(BIN)/python benchmarks/prepare.py

gpu-check: ## whether the kernels are right on this GPU, in three minutes, without installing alexnet
	@PYTHONPATH=src $(GPU_PYTHON) -W default benchmarks/check_gpu.py

gpu-1 gpu-2 gpu-3: ## measure training on a GPU, ten minutes each: 1 ways and peers, 2 part by part, 3 a minute kept up; DATA=store photos
	@PYTHONPATH=src $(GPU_PYTHON) benchmarks/train_gpu.py $(subst gpu-,,$@) --out $@ --cache gpu-kernels.tar.gz $(if $(DATA),--part photos --data "$(DATA)" --seeds 5)

clean: ## remove what `make` made
	rm -rf .venv demo build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("alexnet needs Python 3.11 or newer, this is " + sys.version) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv

.venv/users: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing into .venv (PyTorch is large: a few minutes at the first time) ..."
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	@touch $@

.venv/developers: .venv/users
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@
