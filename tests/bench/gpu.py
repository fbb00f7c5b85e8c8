"""What a GPU gains: `make model-en` for few words with the device that is chosen by itself, beside the same
run on the processor; writes results/gpu.json.

    python tests/bench/gpu.py [--corpus enwiki.txt.gz] [--words 5000] [--minutes 8]
    python tests/bench/gpu.py --dry --out FILE

Both runs are the chain's own, up to the model, in float32. Compared are tokens a second, the seconds of each
stage, the draws, which must be equal, and the encoders, which may differ by float32's noise; then the
finished model is served by ONNX Runtime with CUDA and without. What cannot be done stands in the record with
its reason: no GPU here, no CUDA in ONNX Runtime, no time left. `--dry` tries all of it with two words of the
bundle, on any machine; there both runs are the processor's where torch sees no GPU, and the encoders must be
equal."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cost import facts
from record import save_record

from minicoil import MiniCOIL
from minicoil.runs.run import open_run
from minicoil.stages.draw import read_draw
from minicoil.stages.sentences import sentence_texts
from minicoil.text.transformer import load_tokenizer

ROOT = Path(__file__).resolve().parents[2]
NOISE = 1e-3  # of encoders, as a share of their largest number
HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}  # torch sees no GPU then
DEVICE = """
import json, torch
there = torch.cuda.is_available()
print(json.dumps(torch.cuda.get_device_name() if there else "none that torch sees"))
"""


def gpu_name():
    """The GPU that torch sees, or that there is none."""
    done = subprocess.run([sys.executable, "-c", DEVICE], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def trained(folder, options, variables, seconds):
    """The chain up to the model in a folder: what it took, or why there is nothing to tell."""
    if seconds < 10:
        return {"skipped": "no time left"}
    command = [sys.executable, "-m", "minicoil", "run", *options, "--until", "model", "--out", str(folder)]
    begin = time.perf_counter()
    try:
        done = subprocess.run(
            command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"skipped": f"not done within {seconds:.0f} s"}
    if done.returncode:
        return {"skipped": f"exit code {done.returncode}: {done.stderr.strip().splitlines()[-1]}"}
    found = {"seconds": round(time.perf_counter() - begin, 1), **facts(folder)}
    return found | {"tokens_per_second": tokens_a_second(folder, found)}


def tokens_a_second(folder, found):
    """Tokens of the cover over the seconds of the stage that encodes it."""
    run = open_run(folder)
    ids = np.unique(read_draw(run.stage("sentences").path / "drawn.parquet")[1])
    texts = sentence_texts(run, ids)
    rows = load_tokenizer(run.params.target_model).encode_batch([texts[i] for i in ids.tolist()])
    return round(sum(len(row.ids) for row in rows) / found["stages"]["targets"]["seconds"])


def compared(one, other):
    """Whether two runs drew alike, and how far their encoders are apart."""
    from safetensors.numpy import load_file

    runs = [open_run(folder) for folder in (one, other)]
    draws = [(run.stage("store").path / "drawn.parquet").read_bytes() for run in runs]
    rows = [load_file(run.stage("training").path / "encoders.safetensors")["encoders"] for run in runs]
    apart = float(np.abs(rows[0] - rows[1]).max() / np.abs(rows[1]).max())
    return {"equal_draws": draws[0] == draws[1], "encoders_apart": apart, "within_noise": apart <= NOISE}


def served(folder, texts):
    """Texts a second by each provider of ONNX Runtime, and the largest difference between them."""
    import onnxruntime as ort

    found, vectors = {}, {}
    for provider in ("CPUExecutionProvider", "CUDAExecutionProvider"):
        if provider not in ort.get_available_providers():
            found[provider] = {"skipped": "not among the providers of the onnxruntime that is installed"}
            continue
        model = MiniCOIL.load(folder, providers=[provider])
        list(model.embed(texts[:8]))
        begin = time.perf_counter()
        vectors[provider] = list(model.embed(texts))
        found[provider] = {"texts_per_second": round(len(texts) / (time.perf_counter() - begin), 1)}
    if len(vectors) == 2:
        pairs = zip(*vectors.values())
        found["apart"] = max(float(np.abs(a.values - b.values).max(initial=0)) for a, b in pairs)
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", default="demo")
    parser.add_argument("--words", type=int, default=5000)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--dry", action="store_true", help="two words of the bundle, to try the script")
    parser.add_argument("--out", default=ROOT / "results" / "gpu.json", type=Path)
    given = parser.parse_args()
    ends = time.perf_counter() + 60 * given.minutes
    size = ["--words", "bat,bank"] if given.dry else ["--top-words", str(given.words), "--samples", "50"]
    options = ["--corpus", "demo" if given.dry else given.corpus, *size]
    options += ["--objective", "joint", "--dim", "8", "--pictures", "0", "--precision", "float32"]
    found = {"gpu": gpu_name(), "dry": given.dry, "options": " ".join(options)}
    with tempfile.TemporaryDirectory(prefix="minicoil-gpu-") as name:
        folders = {"chosen": Path(name) / "chosen", "processor": Path(name) / "processor"}
        for kind, variables in (("chosen", {}), ("processor", HIDDEN)):
            found[kind] = trained(folders[kind], options, variables, ends - time.perf_counter() - 20)
        if not any("skipped" in found[kind] for kind in folders):
            found["compared"] = compared(*folders.values())
        if "skipped" not in found["chosen"]:
            texts = list(sentence_texts(open_run(folders["chosen"]), np.arange(200)).values())
            found["served"] = served(folders["chosen"] / "23_model", texts)
    save_record(given.out, found)
    print(json.dumps(found, indent=1))
    skipped = [kind for kind in folders if "skipped" in found[kind]]
    good = found.get("compared", {})
    sys.exit(bool(skipped) or not (good["equal_draws"] and good["within_noise"]))


if __name__ == "__main__":
    main()
