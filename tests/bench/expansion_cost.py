"""What expansion costs: the time of a query, the bytes of an index, the rate of indexing.

    python tests/bench/expansion_cost.py --part documents --beir ir/cranfield --cache outputs/cache
    python tests/bench/expansion_cost.py --part queries --beir ir/cranfield --cache outputs/cache

Queries: each document of the collection stands in the index many times, every time with half of its words,
drawn at random, until there are 100,000 passages. The same index serves with and without expansion. The
transformer's time is told apart: BM25 needs none.
Documents: the collection's own, repeated. What is compared runs by turns in one process, so its ratios hold
where its times do not.
"""

import argparse
import itertools
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from record import save_record

from minicoil import MiniCOIL
from minicoil.retrieval.claim import Point
from minicoil.retrieval.collect_folder import Embedded
from minicoil.retrieval.expanded_documents import expanded_documents, expanded_vector, own_numbers
from minicoil.retrieval.expanded_queries import brought_words, query_vector, without_quotes
from minicoil.retrieval.expansion import Expansion, query_side
from minicoil.retrieval.inverted import Inverted
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import OURS
from minicoil.serving.explanations import read_query
from minicoil.serving.sparse import Reading, SparseEmbedding, sparse_vectors
from minicoil.serving.windows import read_forms, read_query_forms

WIDTH, LIMIT = 384, 10
UNREAD = 40  # documents that the transformer reads anew
RECORDS = {"documents": "expansion_cost", "queries": "expansion_queries"}
BLOCK = 1000  # documents that are put at a time, by turns


class Words:
    """The words of a document: its terms, their BM25 weights, their numbers."""

    def __init__(self, model, document):
        self.model, self.terms = model, document.own.terms
        self.weights, self.numbers = np.asarray(document.weights), own_numbers(model, document.own)
        self.known = np.array([isinstance(term, int) for term in self.terms], bool)

    def vector(self, kept=slice(None)):
        """The plain sparse vector of some of the words."""
        chosen = np.zeros(len(self.terms), bool)
        chosen[kept] = True
        terms = [term for term, some in zip(self.terms, chosen) if some]
        known, weights = self.known[chosen], self.weights[chosen]
        read = Reading(dict.fromkeys([t for t in terms if isinstance(t, int)], 1),
                       dict.fromkeys([t for t in terms if isinstance(t, str)], 1))  # fmt: skip
        numbers = self.numbers[chosen[self.known]]
        return sparse_vectors([read], numbers, weights[known], weights[~known], self.model.shift)[0]


def in_words(model, vector):
    """A sparse vector with one number a word, as BM25 has it: each word's weight at its first index."""
    ours = vector.indices < (len(model.words) + 1) * model.dim
    words = np.where(ours, vector.indices // model.dim * model.dim, vector.indices)
    found, at = np.unique(words, return_inverse=True)
    weights = np.sqrt(np.bincount(at, vector.values.astype(float) ** 2))
    return SparseEmbedding(found.astype(np.int32), weights.astype(np.float32))


def points(vectors, first, dense, texts):
    """Points of sparse vectors, numbered from `first`."""
    for i, vector in enumerate(vectors, first):
        facts = {"id": f"d{i:07d}", "text": texts[i % len(texts)], "digest": "0" * 16}
        yield Point(i + 1, facts, dense[i % len(dense)], vector)


def passages(documents, count, seed=0):
    """Plain vectors of passages: of each document in turn half of the words, drawn at random."""
    draw = np.random.default_rng(seed)
    for document in itertools.islice(itertools.cycle(documents), count):
        size = max(1, len(document.terms) // 2)
        yield document.vector(draw.choice(len(document.terms), size, replace=False))


def filled(model, homes, vectors, dense, texts, block=100_000):
    """Put vectors into a collection of miniCOIL, and one number a word into a collection of BM25."""
    count = 0
    for some in iter(lambda: list(itertools.islice(vectors, block)), []):
        for home, kind in zip(homes, (some, [in_words(model, vector) for vector in some])):
            home.put(list(points(kind, count, dense, texts)))
        count += len(some)


def timed(call):
    """Seconds of the processor that a call takes."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def both_times(call):
    """Seconds on the clock and of the processor that a call takes."""
    clock, processor = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - clock, time.process_time() - processor


def query_costs(model, thesaurus, homes, queries, rounds=3):
    """{what: [(seconds on the clock, of the processor) of each query]}, by turns, the least of some
    rounds; `homes` are of miniCOIL and of BM25. A query is read once, and each way has that ready."""
    ours, words = homes
    found = defaultdict(list)
    for query in queries:
        model.last_query = None
        read = both_times(lambda q=query: read_query(model, q, **OURS))
        found["transformer and sparse vector"].append(read)
        model.last_query = None
        read = both_times(lambda q=query: read_query_forms(model, q))
        found["transformer, sparse vector, and what neighbours need"].append(read)
        plain = read_query(model, query, **OURS).vector
        wide = query_vector(thesaurus, model, plain, brought_words(thesaurus, model, query))
        few, many = in_words(model, plain), in_words(model, wide)
        calls = {
            "BM25": lambda v=few: words.nearest(v, "minicoil", LIMIT),
            "BM25 with neighbours, summed": lambda v=many: words.nearest(v, "minicoil", LIMIT),
            "miniCOIL": lambda v=plain: ours.nearest(v, "minicoil", LIMIT),
            "words brought along": lambda q=query: brought_words(thesaurus, model, q),
            "miniCOIL with neighbours, summed": lambda v=wide: ours.nearest(v, "minicoil", LIMIT),
            "miniCOIL with neighbours, exact": lambda v=plain, q=query: query_side(
                ours, model, q, v, LIMIT, thesaurus),
        }  # fmt: skip
        taken = [{name: both_times(call) for name, call in calls.items()} for _ in range(rounds)]
        for name in calls:
            clock, processor = zip(*(some[name] for some in taken))
            found[name].append((min(clock), min(processor)))
    return found


def in_ms(times):
    """{what: median on the clock and of the processor in ms}, and the latter as a multiple of BM25's."""
    median = {name: np.median(np.array(some), 0) for name, some in times.items()}
    return {
        name: {
            "median_ms": round(1000 * float(clock), 2),
            "processor_ms": round(1000 * float(processor), 2),
            "times BM25": round(float(processor / median["BM25"][1]), 2),
        }
        for name, (clock, processor) in median.items()
    }


def queries_part(model, thesaurus, documents, found, forms, options, scratch):
    """The query side in each engine: {engine: costs}."""
    texts = [text for _, text in found.documents]
    queries = [without_quotes(text) for _, text in found.queries][: options.queries]
    dense = np.asarray(forms.dense, np.float32)
    results = {}
    for engine in options.engine:
        made = {"numpy": lambda p: Inverted(p, WIDTH), "qdrant": lambda p: Embedded(p, WIDTH)}[engine]
        count = options.passages if engine == "numpy" else options.few
        homes = [made(scratch / f"{engine}-{name}") for name in ("ours", "words")]
        filled(model, homes, passages(documents, count), dense, texts)
        if engine == "qdrant":
            for home in homes:
                home.shard.optimize()
        query_costs(model, thesaurus, homes, queries[:3])  # what happens once
        results[engine] = {"passages": count, "queries": len(queries),
                           "costs": in_ms(query_costs(model, thesaurus, homes, queries))}  # fmt: skip
        print(engine, results[engine], flush=True)
        for home in homes:
            home.close()
    return results


def folder_bytes(folder):
    """Bytes of the files in a folder, the log of writes left out."""
    files = (p for p in folder.rglob("*") if p.is_file() and "wal" not in p.relative_to(folder).parts)
    return sum(p.stat().st_size for p in files)


def embedding_costs(model, thesaurus, texts, rounds=3):
    """{what: seconds a document, of the processor} of reading, learning, either kind of vectors; by turns."""
    found = defaultdict(float)
    for _ in range(rounds):
        found["plain vectors, transformer included"] += timed(lambda: list(model.embed(texts, **OURS)))
        begin = time.process_time()
        forms = read_forms(model, texts, normalize=True)
        found["transformer"] += time.process_time() - begin
        found["learning"] += timed(lambda f=forms: Expansion.of_forms(model, f, thesaurus.avg_len))
        begin = time.process_time()
        expanded = list(expanded_documents(thesaurus, model, forms))
        vectors = [expanded_vector(thesaurus, model, document) for document in expanded]
        found["expanded vectors"] += time.process_time() - begin
        assert len(vectors) == len(texts)
    return {name: value / len(texts) / rounds for name, value in found.items()}


def documents_part(model, thesaurus, documents, expanded, found, forms, options, scratch):
    """The documents' side in Qdrant's engine: bytes, and rates of putting and of the whole."""
    texts = [text for _, text in found.documents]
    dense, size = np.asarray(forms.dense, np.float32), len(documents)
    kinds = {"plain": [document.vector() for document in documents],
             "expanded": [expanded_vector(thesaurus, model, document) for document in expanded]}  # fmt: skip
    numbers = {name: float(np.mean([len(v.indices) for v in some])) for name, some in kinds.items()}
    homes = {name: Embedded(scratch / f"put-{name}", WIDTH, expanded=name == "expanded") for name in kinds}
    spent = dict.fromkeys(kinds, 0.0)
    for first in range(0, options.documents, BLOCK):
        for name, vectors in kinds.items():
            some = [vectors[i % size] for i in range(first, first + BLOCK)]
            made = list(points(some, first, dense, texts))
            spent[name] += timed(lambda name=name, made=made: homes[name].put(made))
    for name, home in homes.items():
        spent[f"{name}, optimized"] = spent[name] + timed(home.shard.optimize)
        home.close()
    sizes = {name: folder_bytes(scratch / f"put-{name}") for name in kinds}
    each = {name: value / options.documents for name, value in spent.items()}
    embedding = embedding_costs(model, thesaurus, texts[:UNREAD])
    whole = {name: embedding["transformer"] + each[f"{name}, optimized"] for name in kinds}
    whole["plain"] = embedding["plain vectors, transformer included"] + each["plain, optimized"]
    whole["expanded"] += embedding["expanded vectors"] + embedding["learning"]
    return {
        "documents": options.documents, "numbers a vector": numbers, "bytes": sizes,
        "bytes, ratio": sizes["expanded"] / sizes["plain"], "put, seconds a document": each,
        "put, rate ratio": each["plain"] / each["expanded"],
        "put and optimized, rate ratio": each["plain, optimized"] / each["expanded, optimized"],
        "embedding, seconds a document": embedding, "whole, seconds a document": whole,
        "whole, rate ratio": whole["plain"] / whole["expanded"],
    }  # fmt: skip


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="english")
    options.add_argument("--beir", required=True)
    options.add_argument("--cache")
    options.add_argument("--scratch")
    options.add_argument("--passages", type=int, default=100_000)
    options.add_argument("--few", type=int, default=100_000, help="passages in Qdrant's engine")
    options.add_argument("--queries", type=int, default=100)
    options.add_argument("--documents", type=int, default=6_000)
    options.add_argument("--engine", action="append", choices=["numpy", "qdrant"])
    options.add_argument("--part", choices=list(RECORDS), default="documents")
    options.add_argument("--out")
    given = options.parse_args()
    given.engine = given.engine or ["numpy"]
    model, found = MiniCOIL.load(given.model, threads=1), read_judged(given.beir)
    forms = read_forms(model, [text for _, text in found.documents], given.cache, normalize=True)
    lengths = np.bincount(forms.text, forms.count, len(forms.dense))
    model.avg_len = float(lengths.mean())
    thesaurus = Expansion.of_forms(model, forms, model.avg_len)
    expanded = [e for e in expanded_documents(thesaurus, model, forms) if e.own.terms]
    documents = [Words(model, e) for e in expanded]
    with tempfile.TemporaryDirectory(dir=given.scratch) as folder:
        scratch = Path(folder)
        results = {"collection": Path(given.beir).name}
        args = (found, forms, given, scratch)
        if given.part == "documents":
            results["documents"] = documents_part(model, thesaurus, documents, expanded, *args)
        else:
            results["queries"] = queries_part(model, thesaurus, documents, *args)
    save_record(given.out or f"results/{RECORDS[given.part]}.json", results)


if __name__ == "__main__":
    main()
