"""What meaning is worth where every word has several: the package's model on a collection of labelled senses.

    python tests/bench/sense_collection.py --senses coarsewsd10.jsonl.gz --senses homographs.jsonl.gz

The collection is the one that `minicoil benchmark make-collection` writes. Gains are given for all queries,
for whole sentences and for phrases of four words to each side, and for every second query and the others.
"""

import argparse
import tempfile
from pathlib import Path

from record import save_record
from search import by_kind, halved

from minicoil import MiniCOIL
from minicoil.retrieval.benchmark import benchmark_retrieval
from minicoil.retrieval.retrieval import gain_over
from minicoil.retrieval.sense_collection import make_collection
from minicoil.serving.names import DEFAULT

SYSTEMS = ("bm25", "bm25_cosine", "minicoil", "minicoil_shuffled", "token_full", "token_full_sharp", "dense")


def gains_of(found):
    """{system: {ndcg@10, gain, halves}} of a measured collection; both halves of its queries are scored."""
    rows = {}
    for system in SYSTEMS[1:]:
        halves = [halved(found["per_query"], keep, ("bm25", system)) for keep in (0, 1)]
        rows[system] = {
            "ndcg@10": found["results"][system]["ndcg@10"],
            "gain": found["gain"][system],
            "halves": [gain_over([half], system) for half in halves],
        }
    return rows


def main():
    """Make the collection, measure, write the record."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", default=DEFAULT)
    ask.add_argument("--senses", action="append", required=True)
    ask.add_argument("--cache", default="outputs/cache")
    ask.add_argument("--out", default="results/sense_collection.json")
    given = ask.parse_args()
    model = MiniCOIL.load(given.model)
    with tempfile.TemporaryDirectory() as folder:
        collection = Path(folder) / "senses"
        counts = make_collection(given.senses, collection)
        found = benchmark_retrieval(model, collection, SYSTEMS, cache=given.cache)
    kinds = {kind: by_kind(found, kind) for kind in ("sentence", "window")}
    save_record(
        given.out,
        {"words": len(model.vocabulary.words), **counts, "systems": gains_of(found), "kinds": kinds},
    )


if __name__ == "__main__":
    main()
