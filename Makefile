# Two commands set everything up from a fresh clone:
#   make demo   trains on a small phantom dataset and shows the result
#   make test   runs every check that a change has to pass
# With an NVIDIA card, make gpu tests and measures everything on it, and needs no installation.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKSPACE ?= nnunet_workspace

# of make gpu; also TINY=1 to try it without a card, PEER=python with nnunetv2, PREPARED=cases of stage e
STAGES ?= a,b,c,d,e,f
DEVICE ?= cuda
OUTPUT ?= gpu_report

.PHONY: demo test lint types contracts tests gpu docs clean

demo: $(BIN)/.installed
	$(BIN)/nnunet run demo --workspace $(WORKSPACE)

test: lint types contracts tests

lint: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(BIN)/.installed
	$(BIN)/mypy

contracts: $(BIN)/.installed
	$(BIN)/lint-imports

# those of tests/gpu run on the CPU where no card is: this shows that they work
tests: $(BIN)/.installed
	OMP_NUM_THREADS=1 NNUNET_GPU_TESTS=any $(BIN)/python -m pytest \
	  -n auto --dist worksteal $(PYTEST_ARGUMENTS)

# in under ten minutes; OUTPUT/report.md holds what it found
gpu:
	$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON)) tests/gpu/measure.py --stages $(STAGES) \
	  --device $(DEVICE) --output $(OUTPUT) $(if $(TINY),--tiny) $(if $(PEER),--peer $(PEER)) \
	  $(if $(PREPARED),--prepared $(PREPARED)) $(if $(LIMIT),--limit $(LIMIT))

docs: $(BIN)/.installed
	$(BIN)/pip install -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict

$(BIN)/.installed: pyproject.toml constraints.txt plugins/nnunet_builtin/pages/package-lock.json
	rm -rf nnunet_core.egg-info  # of an older version it would name other plugins
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet "torch==$(shell sed -n 's/^torch==//p' constraints.txt)"
	$(BIN)/pip install --quiet -c constraints.txt -e ".[dev]"
	@# without npm all but report pages works: what it prints says how to add them
	-$(BIN)/python -m nnunet_builtin.pages.bundling
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
