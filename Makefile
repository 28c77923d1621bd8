# The two commands are `make serve` and `make test`; `make install` is the first step of both.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: serve test chaos load soak scale lint install install-dev fuzz hostile mutants audit gpu-check

serve: install
	@$(BIN)/lamanas serve

# Three processes for two cores: much of the time a test waits for a service. One thread each: more would spin against
# each other. With bytecode, even where the environment forbids it: the tests start hundreds of processes that would each
# compile it.
test: install-dev
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

# Kills every part of the service again and again while clients use it; minutes.
chaos: install-dev
	$(BIN)/python -m tests.chaos

# Four times what the service sustains, for two minutes.
load: install-dev
	$(BIN)/python -m tests.chaos.load

# Half of what the service sustains, for 30 minutes with a kill every minute; fails if a process grows by more than 5 %.
soak: install-dev
	$(BIN)/python -m tests.chaos.soak

# 100,000 episodes in a real Redis: how long requests take, and what 1,000 event streams cost; minutes.
scale: install-dev
	$(BIN)/python -m tests.scale

# At least 2,000 made-up requests against the API's description, with all of Schemathesis' checks.
fuzz: install-dev
	$(BIN)/python -m tests.hostile.fuzz

# All damaged and hostile files; tests/hostile/corpus.py makes them.
hostile: install-dev
	$(BIN)/python -m tests.hostile.attack

# Puts a fault into each of 200 random places and runs the tests that belong to it; within 90 minutes, and goes on where it
# stopped. The seed says which places.
mutants: install-dev
	$(BIN)/python -m tests.mutants --seed 13

# On a machine with a GPU: whether it adapts as a CPU does and gives equal bits again, and how fast it is; minutes.
gpu-check: install
	$(BIN)/python -m benchmarks.gpu_check

# Asks a vulnerability service on the network about each pinned package; fails for one that it could not ask about.
audit: install-dev
	$(BIN)/pip-audit --requirement requirements.txt --requirement requirements-tracing.txt --no-deps --disable-pip --strict

lint: install-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m deploy.manifests

install: .venv/installed
install-dev: .venv/installed-dev .venv/installed-runtimes

# The lock says what is installed; the project itself is installed so that edits count at once.
.venv/installed: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.txt requirements-tracing.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@

# What others open model.onnx with, for tests; without npm, what needs node is left out.
.venv/installed-runtimes: .venv/installed requirements-runtimes.txt tests/onnx_file/package-lock.json
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --upgrade --target .venv/runtimes \
	  --requirement requirements-runtimes.txt
	cp tests/onnx_file/package.json tests/onnx_file/package-lock.json .venv/runtimes
	if command -v npm >/dev/null; then npm ci --prefix .venv/runtimes --ignore-scripts --no-audit --no-fund --silent; fi
	@touch $@
