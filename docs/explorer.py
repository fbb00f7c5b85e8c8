"""The explorer that runs in the reader's browser: a model in few files, and the script that opens it.

`write_explorer` makes the page explorer.md and, beside it, a folder of static files: `page.js`, bundled by
esbuild from docs/explorer, examples/javascript/format.mjs and the packages of npm that docs/explorer names,
and `model/`, all that the script downloads when the reader asks. Without npm the page says so.
"""
import gzip
import hashlib
import json
import logging
import shutil
import subprocess
from pathlib import Path

import numpy as np

DOCS = Path(__file__).resolve().parent
SOURCES = [*sorted((DOCS / "explorer").glob("*.*")), DOCS.parent / "examples" / "javascript" / "format.mjs"]
TEXTS = ("tokenizer.json", "tokenizer_config.json", "minicoil.triplet.model.vocab", "stopwords.txt")
MOST = 45_000_000   # bytes that a reader downloads at most


class NoNode(Exception):
    """npm is missing, or could not fetch the packages."""


def int8_parts(weights):
    """(projection or None, numbers (words, rank, dim) int8, scales (words, dim)) of encoders in any form."""
    projection, numbers = getattr(weights, "projection", None), getattr(weights, "numbers", None)
    if projection is not None and numbers.dtype == np.int8:
        return projection, np.asarray(numbers[:]), np.asarray(weights.scales, np.float32)
    every = slice(None) if projection is None else np.arange(weights.shape[0])
    factors = np.asarray(weights[every] if projection is None else weights.factors(every), np.float32)
    scales = (np.abs(factors).max(axis=1) / 127).astype(np.float32)
    return projection, np.round(factors / np.where(scales, scales, 1)[:, None]).astype(np.int8), scales


def flat_encoders(weights):
    """(bytes, shape) of encoders in any form, see encodersOf in model.mjs; checked against them."""
    projection, numbers, scales = int8_parts(weights)
    words, hidden, dim = weights.shape
    for i in {*range(min(words, 50)), *range(max(0, words - 50), words)}:
        mine, right = numbers[i] * scales[i], np.asarray(weights[i])
        mine = mine if projection is None else projection @ mine
        if np.abs(mine - right).max(initial=0) > 0.02 * np.abs(right).max(initial=0) + 1e-6:
            raise ValueError(f"the encoder of word {i} is another one in the browser")
    shape = {"words": words, "hidden": hidden, "rank": numbers.shape[1], "dim": dim,
             "projected": projection is not None}
    floats = [*([] if projection is None else [np.asarray(projection, np.float32)]), scales]
    by_direction = numbers.transpose(1, 0, 2)   # numbers of few bits pack better beside those of as many
    return b"".join(np.ascontiguousarray(a).tobytes() for a in (*floats, by_direction)), shape


def int8_graph(model):
    """The bytes of a model's transformer in int8: its own file, or made from its graph."""
    from minicoil.serving.directory import MODEL_FILES
    own = model.folder / MODEL_FILES["int8"]
    return own.read_bytes() if own.exists() else quantized(model)


def quantized(model):
    """The transformer of a model in int8, as stage 31 makes it."""
    import tempfile

    import onnxruntime as ort
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from minicoil.serving.directory import graph_of
    from minicoil.serving.graph import Weightless, write_graph
    logging.getLogger().setLevel(logging.ERROR)
    graph = graph_of(model.folder, model.info)
    with tempfile.TemporaryDirectory() as folder:
        whole, folded, small = (str(Path(folder) / f"{name}.onnx") for name in ("whole", "folded", "small"))
        if isinstance(graph, Weightless):
            write_graph(whole, graph)
        else:
            shutil.copy(graph, whole)
        options = ort.SessionOptions()
        options.log_severity_level, options.optimized_model_filepath = 3, folded
        # The package's graph transposes its weights; folded they are constants, which alone become int8
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        ort.InferenceSession(whole, options, providers=["CPUExecutionProvider"])
        quantize_dynamic(folded, small, per_channel=True, weight_type=QuantType.QInt8,
                         extra_options={"MatMulConstBOnly": True})
        return Path(small).read_bytes()


def senses_of(model, run):
    """{word: [{name, numbers}]} of the words with several senses in a run of the bundled sentences.

    A sense's numbers are the centre of what the model makes of the word in the sentences of that sense."""
    from minicoil.runs.files import load_json
    from minicoil.stages.senses import word_senses
    from minicoil.stages.sentences import sentence_texts
    from minicoil.stages.store import drawn_sentences
    recorded, found = load_json(run.stage("senses").path / "senses.json"), {}
    for (word, _, ids), (_, senses) in zip(drawn_sentences(run), word_senses(run)):
        clusters = recorded[word]["clusters"]
        if len(clusters) > 1 and word in model.vocabulary.ids:
            texts = sentence_texts(run, ids)
            centres = centres_of(model, word, [texts[i] for i in ids.tolist()], senses["clusters"])
            found[word] = [{"name": cluster["name"], "numbers": centre}
                           for cluster, centre in zip(clusters, centres) if centre]
    return found


def centres_of(model, word, texts, clusters):
    """For each cluster the centre of a word's vectors in its texts, of length 1; none where none was read."""
    by_cluster = [[] for _ in range(int(clusters.max()) + 1)]
    for cluster, vectors in zip(clusters, model.embed_words(texts, normalize=True, windows=True)):
        if word in vectors:
            by_cluster[cluster].append(vectors[word])
    centres = [np.mean(rows, axis=0) if rows else np.zeros(0) for rows in by_cluster]
    return [[round(float(x), 5) for x in c / max(np.linalg.norm(c), 1e-9)] for c in centres]


def write_packed(folder, name, data):
    """What model.json says of a file, which is written packed."""
    packed = gzip.compress(data, 9, mtime=0)
    (folder / name).write_bytes(packed)
    return {"bytes": len(packed), "unpacked": len(data), "sha256": hashlib.sha256(packed).hexdigest()}


def write_model(folder, name, model, transformer, runtime, senses):
    """Write what the browser downloads of a model into a new folder; the bytes of all of it."""
    folder.mkdir(parents=True)
    encoders, shape = flat_encoders(model.weights)
    texts = {name: (model.folder / name).read_text(encoding="utf-8") for name in TEXTS}
    texts["minicoil.json"] = json.dumps({"language": model.vocabulary.language})
    said = json.dumps({"files": texts, "senses": senses}, ensure_ascii=False).encode()
    parts = {"runtime.bin": runtime, "transformer.bin": transformer, "encoders.bin": encoders,
             "texts.bin": said}
    files = {part: write_packed(folder, part, data) for part, data in parts.items()}
    about = json.dumps({"name": name, "encoders": shape, "files": files}, indent=1)
    (folder / "model.json").write_text(about, encoding="utf-8")
    return sum(file["bytes"] for file in files.values())


def call(command, folder):
    """Run a program of npm; a `NoNode` says what it said."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError as e:
        raise NoNode(f"{command[0]}: {e.strerror}") from None
    if done.returncode:
        said = (done.stderr + done.stdout).strip().splitlines()
        raise NoNode(f"{command[0]}: {said[0] if said else done.returncode}")


def bundle(work):
    """Fetch the packages into a work folder, once, and bundle the page's script there; its folder."""
    listed = (DOCS / "explorer" / "package.json").read_bytes()
    kept = work / "package.json"
    if not (work / "fetched").exists() or kept.read_bytes() != listed:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        kept.write_bytes(listed)
        call(["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"], work)
        (work / "fetched").touch()
    for path in SOURCES:
        if path.suffix == ".mjs":
            shutil.copy(path, work / path.name)
    call(["node", "node_modules/esbuild/bin/esbuild", "page.mjs", "--bundle", "--format=esm", "--minify",
          "--platform=browser", "--external:module", "--external:worker_threads", "--log-level=warning",
          "--legal-comments=none", "--outfile=page.js"], work)
    return work


def licences(work):
    """Name, version, licence and notice of every package in the bundle."""
    found = []
    for path in sorted((work / "node_modules").glob("**/package.json")):
        said = json.loads(path.read_text(encoding="utf-8"))
        scope = path.parent.parent.name
        if "license" not in said or scope != "node_modules" and not scope.startswith("@"):
            continue
        notices = [p.read_text(encoding="utf-8") for p in sorted(path.parent.glob("LICEN[CS]E*"))]
        found.append("\n\n".join([f"{said['name']} {said['version']}: {said['license']}", *notices]))
    return ("\n\n" + "-" * 40 + "\n\n").join(found) + "\n"


def write_script(work, folder):
    """The bundled script, the one that starts it, and the licences, into the site's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(work / "page.js", folder)
    shutil.copy(DOCS / "explorer" / "start.js", folder)
    (folder / "licences.txt").write_text(licences(work), encoding="utf-8")


def runtime_of(work):
    """ONNX Runtime's WebAssembly."""
    return (work / "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded.wasm").read_bytes()


def explorer_page(size, senses):
    """The page's text, with its size in bytes and the words whose senses have names."""
    values = {"SIZE": f"{size / 1e6:.0f}", "NAMED": str(len(senses)), "EXAMPLES": ", ".join(list(senses)[:4])}
    text = (DOCS / "explorer" / "explorer.md").read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return text


def key_of(run):
    """What the explorer is made of: its sources, the model, and the run with the senses."""
    from minicoil.serving.names import DEFAULT, box
    digest = hashlib.sha256()
    senses = run.stage("senses").path / "manifest.json"
    for path in [Path(__file__), *SOURCES, box() / DEFAULT / "manifest.json", senses]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def make_explorer(run, folder, work):
    """The explorer of the model in the package into `folder`; the text of its page."""
    from minicoil import MiniCOIL
    from minicoil.serving.names import DEFAULT
    bundle(work)
    model = MiniCOIL.load(DEFAULT, threads=1)
    senses = senses_of(model, run)
    shutil.rmtree(folder, ignore_errors=True)
    size = write_model(folder / "model", DEFAULT, model, int8_graph(model), runtime_of(work), senses)
    write_script(work, folder)
    size += (folder / "page.js").stat().st_size
    if size > MOST:
        raise SystemExit(f"docs: the explorer has {size:,} bytes, more than {MOST:,}")
    return explorer_page(size, senses)


def write_explorer(run_folder, build, source):
    """The page into `source`, its files into the site; kept from the last build where nothing has changed."""
    from minicoil.runs.run import open_run
    run, kept, target = open_run(run_folder), build / "explorer", build / "extra" / "explorer"
    stamp, page = kept / "key", kept / "explorer.md"
    try:
        if not (stamp.exists() and stamp.read_text() == key_of(run)):
            print("docs: packing a model for the page that runs in the browser", flush=True)
            said = make_explorer(run, kept / "site", build / "node")
            page.write_text(said, encoding="utf-8")
            stamp.write_text(key_of(run))
        shutil.copytree(kept / "site", target)
    except NoNode as e:
        print(f"docs: the page that runs in the browser is left out: {e}", flush=True)
        page = DOCS / "explorer" / "missing.md"
    shutil.copy(page, source / "explorer.md")
