# make run: set up and open the app (without a display: the same loop headless). make test: set up and check everything.
VENV ?= .venv
export VENV
BIN := $(VENV)/bin
ARGS ?=

.PHONY: run demo test setup setup-test check types imports tests format screenshots bench mutation faults torture soak crash resume fuzz clean help

run: setup
	$(BIN)/takeover $(ARGS)

demo: setup
	$(BIN)/takeover demo $(ARGS)

setup:
	@sh scripts/setup.sh run

setup-test:
	@sh scripts/setup.sh test

test: setup-test check types imports tests

check: setup-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup-test
	$(BIN)/mypy

imports: setup-test
	$(BIN)/lint-imports --no-logo

# Windows of the tests open on a virtual display, never on the desktop.
tests: setup-test
	xvfb-run -a -s "-screen 0 1680x1050x24" env -u WAYLAND_DISPLAY $(BIN)/python -m tests.run $(ARGS)

format: setup-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

screenshots: setup-test
	xvfb-run -a -s "-screen 0 1680x1050x24" $(BIN)/python -m takeover.app.console.screenshots --out docs/images $(ARGS)

# One reproducible run of the whole loop; see also benchmarks/.
bench: setup
	$(BIN)/takeover run --headless --clock lockstep --robot sim:peg-insert --episodes 380 --seed 1 --summary bench.json $(ARGS)

# Whether the tests notice when a limit, a refusal or a timeout is taken away.
mutation: setup-test
	$(BIN)/python -m benchmarks.mutation_check --out docs/results/mutation.txt $(ARGS)

# Random faults at a whole station: does the robot stand when it must, and does the station go on?
torture: setup-test
	$(BIN)/python -m benchmarks.torture $(ARGS)

# A whole station for an hour: memory, descriptors and threads of every process.
soak: setup-test
	$(BIN)/python -m benchmarks.soak $(ARGS)

# The recorder killed a hundred times, files cut and flipped, the disk full: is anything lost?
crash: setup-test
	$(BIN)/python -m benchmarks.crash $(ARGS)

# The learner killed at random moments: does it end at the same bits as one that nobody disturbed?
resume: setup-test
	$(BIN)/python -m benchmarks.resume $(ARGS)

# The fault matrix with its figures, into docs/faults.md (a few minutes, on a quiet machine).
faults: setup-test
	xvfb-run -a -s "-screen 0 1680x1050x24" env -u WAYLAND_DISPLAY $(BIN)/python -m tests.faults.report $(ARGS)

# Decoders against random and mutated messages, for longer than in the tests: FUZZ_SEED=2 make fuzz
fuzz: setup-test
	FUZZ_MESSAGES=300000 $(BIN)/python -m pytest tests/robot_bridge/test_fuzz.py --timeout 900 $(ARGS)

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .grimp_cache

help:
	@sed -n 's/^\([a-z-]*\):.*/\1/p' Makefile
