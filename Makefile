# All development commands. Works on a fresh machine with Python (3.10 or later), git and make.

VENV ?= .venv
PYTHON ?= python3
INSTALLER ?= $(BIN)/pip install --quiet
PYTEST_ARGS ?= -n 2
BIN := $(VENV)/bin

# Check both PYTHON and an existing environment, so that one that is too old is never used.
NEW_ENOUGH = for python in $(PYTHON) $(wildcard $(BIN)/python); do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "$$python is too old: Python 3.10 or later is needed. Name one, such as" \
			"make PYTHON=python3.12, and remove $(VENV) if it was made by an older one."; exit 2; }; done

# The networks are small: a second thread makes them slower, and takes a core from other tests.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint format readme images bench wheel clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' \
		| awk -F '\t' '{ printf "  make %-12s %s\n", $$1, $$2 }'

# A complete environment is marked, so that it is installed again only if pyproject.toml has changed
# or an installation was interrupted.
$(VENV)/.installed: pyproject.toml
	@$(NEW_ENOUGH)
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): PyTorch and other packages, about 6 GB; this takes a few minutes."
	$(INSTALLER) --editable .
	touch $@

$(VENV)/.installed-dev: pyproject.toml
	@$(NEW_ENOUGH)
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): PyTorch, the test tools and other packages, about 6 GB."
	$(INSTALLER) --editable '.[dev]'
	touch $@ $(VENV)/.installed

quickstart: RUNS := runs/quickstart
quickstart: $(VENV)/.installed ## install, then train and test a network on digits that need no download
	$(BIN)/mnist-zoo fit --config ConvNetReLU-digits --trainer.default_root_dir $(RUNS)
	@set -e; run=$$(ls -td $(RUNS)/ConvNetReLU/version_* | head -n 1); set -x; \
		$(BIN)/mnist-zoo test --ckpt_path $$run/checkpoints/best.ckpt; \
		{ set +x; } 2>/dev/null; \
		echo; \
		echo "That was a convolutional network, trained on small digits that come with scikit-learn."; \
		echo "Its configuration, checkpoints and curves are in $$run"; \
		echo; \
		echo "Next:"; \
		printf '  %-38s %s\n' \
			". $(BIN)/activate" "lets you run mnist-zoo without its path" \
			"mnist-zoo models" "all networks, their recipes and figures" \
			"mnist-zoo predict FILE.png" "digits in your own pictures, without training" \
			"mnist-zoo fit --model Dense" "a network on MNIST (downloads 11 MB, takes minutes)" \
			"tensorboard --logdir $(RUNS)" "the curves"

test: $(VENV)/.installed-dev ## run all tests; PYTEST_ARGS="-m 'not slow'" for the quick ones
	$(BIN)/pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

wheel: $(VENV)/.installed-dev ## build the wheel into dist/
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

clean: ## remove what other targets made, except runs/ and data/
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

readme: $(VENV)/.installed ## update the tables of networks and results in README.md
	$(BIN)/mnist-zoo results --readme README.md

images: RUNS := runs/images
images: PLAIN := --trainer.enable_progress_bar false --trainer.accelerator cpu
images: $(VENV)/.installed ## redraw the pictures of README.md, from scikit-learn's digits
	rm -rf $(RUNS) && mkdir -p docs/images
	for lr in 0.05 0.2; do for seed in 0 1 2; do \
		$(BIN)/mnist-zoo fit --config ConvNetReLU-digits --trainer.default_root_dir $(RUNS) \
			--model.lr $$lr --seed_everything $$seed $(PLAIN) || exit 1; \
	done; done
	$(BIN)/mnist-zoo plot $(RUNS) --out docs/images/plot.png
	$(BIN)/mnist-zoo test --ckpt_path $(RUNS)/ConvNetReLU/version_3/checkpoints/best.ckpt $(PLAIN)
	$(BIN)/mnist-zoo explain --ckpt_path $(RUNS)/ConvNetReLU/version_3/checkpoints/best.ckpt --num 6
	for name in test-sheet explain-saliency; do \
		cp $(RUNS)/ConvNetReLU/version_3/pictures/$$name.png docs/images/; \
	done

bench: $(VENV)/.installed ## time steps, scaling, a GPU; kill and resume runs; BENCH_ARGS="--rounds 1"
	$(BIN)/python benchmarks/steps.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/scaling.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/accelerator.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/records_on_gpu.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/resume.py
