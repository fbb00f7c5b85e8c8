"""What expanded documents cost an index as it grows: the rate of putting them, and the bytes.

    python tests/bench/expansion_sizes.py --beir ir/cranfield --cache outputs/cache --sizes 20000 200000

Passages are made up: of each document of a collection in turn twenty of its words, drawn at random; the
expanded ones have the words that the document is given besides. Plain and expanded passages are put by turns
into two indexes, in one process, and each size is looked at when the indexes have grown to it. What reading
and the vectors take is measured on documents that are read anew, by turns too, and is the same at every size.
An index in numpy takes the memory of its last segments only; Qdrant's keeps all in memory while it is put.
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path

import numpy as np
from expansion_cost import UNREAD, WIDTH, Words, embedding_costs, folder_bytes
from record import save_record

from minicoil import MiniCOIL
from minicoil.retrieval.claim import Point
from minicoil.retrieval.collect_folder import Embedded
from minicoil.retrieval.expanded_documents import expanded_documents, expanded_vector
from minicoil.retrieval.expanded_queries import indexes_of
from minicoil.retrieval.expansion import Expansion
from minicoil.retrieval.inverted import Inverted
from minicoil.retrieval.judged import read_judged
from minicoil.serving.sparse import SparseEmbedding
from minicoil.serving.windows import read_forms

KINDS = ("plain", "expanded")
DRAWN = 20  # words of a passage
STEP = 5000  # passages that are put at a time
TEXT = "a passage of a text that was made up for a measurement, and that nobody will ever read " * 2


class Drawn:
    """A document that passages are drawn from: for each kind of vector the word at each index."""

    def __init__(self, model, thesaurus, document, dense):
        whole = Words(model, document)
        self.words, self.dense = len(whole.terms), dense
        self.vectors = {"plain": whole.vector(), "expanded": expanded_vector(thesaurus, model, document)}
        of = {i: k for k, term in enumerate(whole.terms) for i in indexes_of(model, term)}
        self.owners = {name: np.array([of.get(i, -1) for i in vector.indices.tolist()])
                       for name, vector in self.vectors.items()}  # fmt: skip

    def passage(self, draw):
        """{kind: sparse vector} of a passage."""
        chosen = np.zeros(self.words + 1, bool)
        chosen[draw.permutation(self.words)[:DRAWN]] = True
        chosen[-1] = True  # what is nobody's: padding, and the words that are added
        kept = {name: chosen[owners] for name, owners in self.owners.items()}
        return {name: SparseEmbedding(vector.indices[kept[name]], vector.values[kept[name]])
                for name, vector in self.vectors.items()}  # fmt: skip


def passages(documents, first, count):
    """{kind: points} of some passages, numbered from `first`."""
    draw, found = np.random.default_rng(first), {name: [] for name in KINDS}
    for i in range(first, first + count):
        document = documents[i % len(documents)]
        facts = {"id": f"d{i:07d}", "text": TEXT, "digest": "0" * 16}
        for name, vector in document.passage(draw).items():
            found[name].append(Point(i + 1, facts, document.dense, vector))
    return found


def both_times(call):
    """Seconds on the clock and of the processor that a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return np.array([time.perf_counter() - clock, time.process_time() - processor])


def settled(home):
    """Have an index write what it has put off."""
    if isinstance(home, Embedded):
        home.shard.optimize()
        home.shard.flush()


def sized(spent, folders, size, embedding):
    """What the indexes have cost when they have grown to a size; seconds are the processor's."""
    put = {name: float(taken[1]) / size for name, taken in spent.items()}
    more = sum(embedding[name] for name in ("transformer", "expanded vectors", "learning"))
    read = {"plain": embedding["plain vectors, transformer included"], "expanded": more}
    whole = {name: read[name] + put[name] for name in KINDS}
    sizes = {name: folder_bytes(folder) for name, folder in folders.items()}
    return {
        "bytes": sizes, "bytes, ratio": sizes["expanded"] / sizes["plain"],
        "put, seconds a document": put, "put, rate ratio": put["plain"] / put["expanded"],
        "put, seconds on the clock": {name: float(taken[0]) / size for name, taken in spent.items()},
        "whole, seconds a document": whole, "whole, rate ratio": whole["plain"] / whole["expanded"],
    }  # fmt: skip


def grown(documents, embedding, options, scratch):
    """{size: what both indexes have cost} of one engine; yielded at each size."""
    made = {"numpy": lambda p, _: Inverted(p, WIDTH), "qdrant": lambda p, e: Embedded(p, WIDTH, expanded=e)}
    folders = {name: scratch / name for name in KINDS}
    homes = {name: made[options.engine](folders[name], name == "expanded") for name in KINDS}
    spent, count = {name: np.zeros(2) for name in KINDS}, 0
    for size in sorted(options.sizes):
        while count < size:
            step = min(STEP, size - count)
            for name, points in passages(documents, count, step).items():
                spent[name] += both_times(lambda name=name, points=points: homes[name].put(points))
                del points
            count += step
            gc.collect()
        for name in KINDS:
            spent[name] += both_times(lambda name=name: settled(homes[name]))
        yield size, sized(spent, folders, size, embedding)
    for home in homes.values():
        home.close()


def main():
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--model", default="english")
    options.add_argument("--beir", required=True)
    options.add_argument("--cache")
    options.add_argument("--scratch")
    options.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000, 1_000_000])
    options.add_argument("--engine", choices=["numpy", "qdrant"], default="numpy")
    options.add_argument("--out", default="results/expansion_sizes.json")
    given = options.parse_args()
    model, found = MiniCOIL.load(given.model, threads=1), read_judged(given.beir)
    texts = [text for _, text in found.documents]
    forms = read_forms(model, texts, given.cache, normalize=True)
    model.avg_len = float(np.bincount(forms.text, forms.count, len(forms.dense)).mean())
    thesaurus = Expansion.of_forms(model, forms, model.avg_len)
    embedding = embedding_costs(model, thesaurus, texts[:UNREAD])
    every = zip(expanded_documents(thesaurus, model, forms), np.asarray(forms.dense, np.float32))
    documents = [Drawn(model, thesaurus, e, dense) for e, dense in every if e.own.terms]
    mean = {name: float(np.mean([len(v.indices) for d in documents[:200]
                                 for v in [d.passage(np.random.default_rng(0))[name]]]))
            for name in KINDS}  # fmt: skip
    results = {"collection": Path(given.beir).name, "engine": given.engine, "words of a passage": DRAWN,
               "numbers a vector": mean, "embedding, seconds a document": embedding, "sizes": {}}  # fmt: skip
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        for size, costs in grown(documents, embedding, given, Path(scratch)):
            results["sizes"][str(size)] = costs
            save_record(given.out, results)
            ratios = {name: round(v, 2) for name, v in costs.items() if name.endswith("ratio")}
            print(size, ratios, flush=True)


if __name__ == "__main__":
    main()
