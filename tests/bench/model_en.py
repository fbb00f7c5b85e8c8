"""What `make model-en` took, a stage at a time, and how near its encoding is to what the processor can
multiply; writes results/model_en.json.

    python tests/bench/model_en.py --run outputs/en [--batches 40] [--rounds 5] [--watch senses]

RUN is a finished run, which is only read. Its executed notebooks say what each cell took: `start` is a stage
until its first cell, `import` the cells that the package is exported from, `work` the cell with the stage's
function, and `rest` the checks and pictures. The log says how much memory a process of a stage held at most.

The limit is the products alone: matrices of the shapes that the transformer multiplies for the same batches,
with nothing between them, by torch, numpy and ONNX Runtime. A process on every core does this, on one thread,
as in the stage; they wait for each other before each way, and ways take turns. Processor seconds count, so
that other jobs of the machine change little.

`--watch` does stages again on a copy of the run and adds up the memory of all processes of the chain, pages
that several processes share counted once."""

import argparse
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from chain import PARTS, part_of
from record import save_record

from minicoil.pictures.times import stage_peaks
from minicoil.runs.files import load_json, one_thread
from minicoil.runs.run import STAGES, open_run
from minicoil.serving.graph import Weightless, find_weights, is_bundled
from minicoil.stages.sentences import sentence_texts
from minicoil.stages.targets import ids_to_encode
from minicoil.text.transformer import (
    BATCH_TOKENS,
    LAYERS,
    arithmetic,
    equal_length_batches,
    load_tokenizer,
    load_transformer,
    locate_model,
    model_inputs,
)

ROOT = Path(__file__).resolve().parents[2]
EVERY = 0.5  # seconds between two looks at the memory


def at(moment):
    """Seconds of a moment as papermill writes it."""
    return datetime.fromisoformat(moment).timestamp()


def cell_times(notebook):
    """[(source, when it began, when it ended)] of the cells that papermill has executed, in order."""
    cells = [(cell["source"], cell["metadata"].get("papermill", {})) for cell in notebook["cells"]]
    return [
        ("".join(source), at(told["start_time"]), at(told["end_time"]))
        for source, told in cells
        if told.get("start_time") and told.get("end_time")
    ]


def stage_parts(notebook, function):
    """{part: seconds on the clock} of a stage's executed notebook."""
    told, row = notebook["metadata"]["papermill"], dict.fromkeys(PARTS, 0.0)
    before = at(told["start_time"])
    cells = cell_times(notebook)
    row["start"] = cells[0][1] - before
    for source, begin, end in cells:
        part = part_of(source, function)
        if part == "work" and row["work"]:
            part = "rest"  # a check calls the function again
        row[part] += end - begin
    row["rest"] += at(told["end_time"]) - before - sum(row.values())
    return {part: round(seconds, 1) for part, seconds in row.items()}


def executed(run):
    """{stage: its executed notebook} of a finished run."""
    names = {stage: name for stage, (name, _) in STAGES.items()}
    files = {stage: run.dir / "notebooks" / f"{name}.ipynb" for stage, name in names.items()}
    return {stage: load_json(file) for stage, file in files.items() if file.exists()}


def stage_facts(run):
    """(seconds from the first stage's begin to the last one's end, {stage: parts and `peak_mb`})."""
    notebooks, log = executed(run), (run.dir / "log.txt").read_text(encoding="utf-8")
    peaks, rows = stage_peaks(log), {}
    for stage, notebook in notebooks.items():
        function = STAGES[stage][1].split(":")[1]
        rows[stage] = {**stage_parts(notebook, function), "peak_mb": peaks.get(stage)}
    told = [notebook["metadata"]["papermill"] for notebook in notebooks.values()]
    seconds = max(at(t["end_time"]) for t in told) - min(at(t["start_time"]) for t in told)
    return round(seconds, 1), rows


class Net(NamedTuple):
    """The sizes of a transformer."""

    layers: int
    heads: int
    hidden: int
    inner: int

    def linear(self):
        """(inputs, outputs) of a layer's weights: queries, keys, values, output, and the two wide ones."""
        return [(self.hidden, self.hidden)] * 4 + [(self.hidden, self.inner), (self.inner, self.hidden)]

    def operations(self, rows, length):
        """Multiplications and additions for `rows` texts of one length."""
        weights = sum(a * b for a, b in self.linear()) * rows * length
        return 2 * self.layers * (weights + 2 * rows * length * length * self.hidden)


def net_of(name):
    """The `Net` of a transformer by name."""
    told = load_json(Path(locate_model(name)) / "config.json")
    keys = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
    return Net(*(told[key] for key in keys))


def made_weights(net):
    """[[matrix (inputs, outputs) float32, a product each] a layer], whose products keep their size."""
    rng = np.random.default_rng(0)
    return [
        [(rng.normal(size=shape) / shape[0] ** 0.5).astype(np.float32) for shape in net.linear()]
        for _ in range(net.layers)
    ]


def made_inputs(net, shapes):
    """For each batch (rows, length): token embeddings, queries, keys and values as float32 arrays."""
    rng, width = np.random.default_rng(1), net.hidden // net.heads
    found = []
    for rows, length in shapes:
        x = rng.normal(size=(rows * length, net.hidden))
        q, v = rng.normal(size=(2, rows * net.heads, length, width))
        k = rng.normal(size=(rows * net.heads, width, length)) / width**0.5
        found.append([a.astype(np.float32) for a in (x, q, k, v / length**0.5)])
    return found


def numpy_products(weights, inputs):
    """The products by numpy."""
    for x, q, k, v in inputs:
        for layer in weights:
            for w in layer:
                x = x @ w
            q = (q @ k) @ v


def torch_products(weights, inputs):
    """The products by torch; weights are (outputs, inputs), as its linear layers have them."""
    import torch

    with torch.inference_mode():
        for x, q, k, v in inputs:
            for layer in weights:
                for w in layer:
                    x = torch.nn.functional.linear(x, w)
                q = (q @ k) @ v


def for_torch(weights, inputs, kind):
    """Weights and inputs as torch's tensors of a kind."""
    import torch

    turned = [[torch.from_numpy(w.T.copy()).to(kind) for w in layer] for layer in weights]
    return turned, [[torch.from_numpy(a).to(kind) for a in some] for some in inputs]


def runtime_session(data):
    """ONNX Runtime's session of one thread."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def product_graph(weights):
    """The products as an ONNX model, in bytes."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, x, q = [], [], "x", "q"
    for i, layer in enumerate(weights):
        for j, w in enumerate(layer):
            tensors.append(numpy_helper.from_array(w, f"w{i}_{j}"))
            nodes.append(helper.make_node("MatMul", [x, f"w{i}_{j}"], [f"x{i}_{j}"]))
            x = f"x{i}_{j}"
        nodes.append(helper.make_node("MatMul", [q, "k"], [f"s{i}"]))
        nodes.append(helper.make_node("MatMul", [f"s{i}", "v"], [f"q{i}"]))
        q = f"q{i}"
    ranks = {"x": 2, "q": 3, "k": 3, "v": 3, x: 2, q: 3}
    values = {
        name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)
        for name, rank in ranks.items()
    }
    graph = helper.make_graph(
        nodes, "products", [values[name] for name in "xqkv"], [values[x], values[q]], tensors
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)]).SerializeToString()


def products(net, shapes):
    """{way: a function that multiplies for all batches} without anything between the products."""
    import torch

    weights, inputs = made_weights(net), made_inputs(net, shapes)
    half, single = (for_torch(weights, inputs, kind) for kind in (torch.bfloat16, torch.float32))
    session = runtime_session(product_graph(weights))
    fed = [dict(zip("xqkv", some)) for some in inputs]
    return {
        "products, torch, bf16": lambda: torch_products(*half),
        "products, torch": lambda: torch_products(*single),
        "products, numpy": lambda: numpy_products(weights, inputs),
        "products, ONNX Runtime": lambda: [session.run(None, some) for some in fed],
    }


def encodings(name, batches):
    """{way: a function that runs the transformer over batches of rows of token ids}."""
    model = load_transformer(name)
    found = {
        "torch, bf16": lambda: [model.forward_all(rows, True) for rows in batches],
        "torch": lambda: [model.forward_all(rows) for rows in batches],
    }
    if is_bundled(name):
        session = runtime_session(Weightless(LAYERS, find_weights()).with_weights())
        names = [given.name for given in session.get_inputs()]
        fed = [{k: v.numpy() for k, v in model_inputs(model, rows).items() if k in names} for rows in batches]
        found["ONNX Runtime"] = lambda: [session.run(None, some) for some in fed]
    return found


def in_turns(ways, rounds, ready=None):
    """{way: processor seconds of each round} of functions, in another order each round, after `ready`."""
    seconds, names = {way: [] for way in ways}, list(ways)
    for turn in range(rounds):
        for way in names[turn % len(names) :] + names[: turn % len(names)]:
            if ready:
                ready()
            begin = time.process_time()
            ways[way]()
            seconds[way].append(time.process_time() - begin)
    return seconds


def measure(name, batches, rounds, barrier, answers):
    """In a process of its own: processor seconds of every way and round; all processes begin together."""
    one_thread()
    shapes = [(len(rows), len(rows[0])) for rows in batches]
    ways = {**encodings(name, batches), **products(net_of(name), shapes)}
    for way in ways.values():
        way()  # opens what the first call has to
    answers.put(in_turns(ways, rounds, barrier.wait))


def limit(name, rows, jobs, count, rounds):
    """Tokens and operations a processor second, of all processes together, by each way."""
    drawn = list(equal_length_batches(rows))
    chosen = np.random.default_rng(0).permutation(len(drawn))[:count]
    batches = [[rows[i] for i in drawn[number]] for number in sorted(chosen.tolist())]
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(jobs), context.Queue()
    given = (name, batches, rounds, barrier, answers)
    workers = [context.Process(target=measure, args=given) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    seconds = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    net, tokens = net_of(name), sum(map(len, (row for batch in batches for row in batch)))
    work = sum(net.operations(len(batch), len(batch[0])) for batch in batches)
    each = {way: [statistics.median(found[way]) for found in seconds] for way in seconds[0]}
    return {
        "processes": jobs,
        "batches": len(batches),
        "tokens": tokens,
        "rounds": rounds,
        "tokens_per_second": {way: round(sum(tokens / s for s in took)) for way, took in each.items()},
        "gflops": {way: round(sum(work / s for s in took) / 1e9, 1) for way, took in each.items()},
    }


def family(pid):
    """Process ids of a process and of all below it."""
    try:
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(one for child in below for one in family(int(child)))]


def held(pid):
    """MB that a process holds, its share of pages that it has in common with others."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def linked(file, copy):
    """Copy a file; of arrays and tables, which no stage changes in place, a link will do."""
    put = os.link if Path(file).suffix in (".npy", ".parquet") else shutil.copy2
    put(file, copy)


def watched(run, stage):
    """The most MB that all processes of the chain held at once while a stage was done again, on a copy."""
    with tempfile.TemporaryDirectory(prefix="minicoil-en-") as folder:
        copy = Path(folder) / "run"
        shutil.copytree(run.dir, copy, copy_function=linked)
        command = [sys.executable, "-m", "minicoil", "run", "--out", str(copy)]
        begun = subprocess.Popen([*command, "--from", stage, "--until", stage], stderr=subprocess.DEVNULL)
        most = 0
        while begun.poll() is None:
            most = max(most, sum(map(held, family(begun.pid))))
            time.sleep(EVERY)
        if begun.returncode:
            raise SystemExit(f"{stage} failed with {begun.returncode}")
    return round(most)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True, help="a finished run of make model-en")
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("--watch", action="append", default=[], choices=list(STAGES))
    parser.add_argument("--out", default=ROOT / "results" / "model_en.json", type=Path)
    given = parser.parse_args()
    run = open_run(given.run)
    seconds, stages = stage_facts(run)
    name, ids = run.params.target_model, ids_to_encode(run)
    texts = sentence_texts(run, ids)
    rows = [row.ids for row in load_tokenizer(name).encode_batch([texts[i] for i in ids.tolist()])]
    tokens, manifest = sum(map(len, rows)), run.stage("sentences").manifest
    found = {
        "documents": run.stage("corpus").manifest["documents"],
        **{key: manifest[key] for key in ("sentences", "words")},
        **{key: getattr(run.params, key) for key in ("objective", "dim", "samples")},
        "seconds": seconds,
        "stages": stages,
        "all_processes_mb": {stage: watched(run, stage) for stage in given.watch},
        "encoding": {
            "sentences": len(ids),
            "tokens": tokens,
            "tokens_per_second": round(tokens / stages["targets"]["work"]),
            "arithmetic": arithmetic(run.params.precision),
            "batch_tokens": BATCH_TOKENS,
        },
        "limit": limit(name, rows, given.jobs, given.batches, given.rounds),
    }
    save_record(given.out, found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
