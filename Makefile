# Everything happens in .venv: it is made and filled on the first call, and again when what it is made of has changed.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
export HF_HUB_DISABLE_TELEMETRY = 1
export PYTHONWARNINGS = ignore::SyntaxWarning

.PHONY: run test test-slow bench lab readme clean-notebooks help
help:
	@echo "make run    train a model on the bundled sentences; the last lines say where to look"
	@echo "make test   everything that should hold"
	@echo "make lab    JupyterLab with the notebooks"

$(READY): settings.ini setup.py constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools wheel -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable '.[all]'
	@touch $(READY)

run: $(READY)
	$(BIN)/minicoil run --corpus demo --out outputs/demo

test: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tests/all.py

test-slow: $(READY)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -q tests --slow

bench: $(READY)
	$(BIN)/minicoil run --corpus demo --out outputs/demo
	$(BIN)/minicoil benchmark retrieval --model outputs/demo/23_model --data demo
	$(BIN)/python tests/bench_forms.py --model outputs/demo/23_model --static
	$(BIN)/python tests/bench_serving.py --model outputs/demo/23_model

lab: $(READY)
	$(BIN)/jupyter lab --ServerApp.root_dir=. nbs/index.ipynb

readme: $(READY)
	$(BIN)/python tests/readme.py --write

clean-notebooks: $(READY)
	$(BIN)/nbdev_clean
	$(BIN)/nbstripout --keep-id nbs/*.ipynb
