"""Neighbours of forty words and what thirty documents are given, to be read by a person, and what one said.

    python tests/bench/expansion_read.py --beir ir/cranfield --beir ir/medline \\
                --out results/expansion_read.json
    python tests/bench/expansion_read.py --verdict refused.json --out results/expansion_read.json

Words are drawn at random, as are documents. The first call writes the items to be read, the second one adds
what a reader said: {collection: {"words" and "documents": {item: the words refused}}}. Of a word's neighbours
those are refused that mean neither nearly the same nor anything close to it; of a document's words, those
that a search for it should not be led by.
"""

import argparse
from pathlib import Path

import numpy as np
from record import save_record

from minicoil import MiniCOIL
from minicoil.retrieval.expanded_documents import expanded_documents
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.thesaurus import Thesaurus
from minicoil.runs.files import load_json
from minicoil.serving.windows import read_forms

WORDS, DOCUMENTS = 20, 15  # of each collection
NEIGHBOURS, GIVEN = 5, 8  # of a word; words of a document
LEAST = 4  # documents that have a word: what is rarer is no word to have neighbours


def items(model, folder, cache, seed=0):
    """{"words": {word: its neighbours}, "documents": {id: its words}} of a collection, drawn at random."""
    draw, found = np.random.default_rng(seed), read_judged(folder)
    forms = read_forms(model, [text for _, text in found.documents], cache, normalize=True)
    lengths = np.bincount(forms.text, forms.count, len(forms.dense))
    thesaurus = Thesaurus.of_forms(model, forms, float(lengths.mean()))
    common = np.flatnonzero((thesaurus.counts >= LEAST) & thesaurus.wordlike)
    names = [thesaurus.names[row] for row in draw.choice(common, WORDS, replace=False)]
    words = {name: [near.name for near in thesaurus.neighbours(name, NEIGHBOURS)] for name in names}
    wanted = set(draw.choice(len(found.documents), DOCUMENTS, replace=False).tolist())
    given = {}
    for i, document in enumerate(expanded_documents(thesaurus, model, forms, GIVEN)):
        if i in wanted:
            name, text = found.documents[i]
            given[name] = {"text": text[:300], "words": [thesaurus.names[row] for row in document.added.rows]}
    return {"words": words, "documents": given}


def shares(found, refused):
    """{"words" and "documents": items, words read, accepted, share} of one collection."""
    counts = {}
    for kind, some in found.items():
        lists = {name: given["words"] if kind == "documents" else given for name, given in some.items()}
        read = sum(map(len, lists.values()))
        bad = sum(word in lists[name] for name, words in refused[kind].items() for word in words)
        counts[kind] = {"items": len(lists), "read": read, "accepted": read - bad, "share": 1 - bad / read}
    return counts


def main():
    options = argparse.ArgumentParser()
    options.add_argument("--model", default="english")
    options.add_argument("--beir", action="append", default=[])
    options.add_argument("--cache")
    options.add_argument("--verdict")
    options.add_argument("--out", required=True)
    given = options.parse_args()
    if given.verdict:
        results, refused = load_json(given.out)["results"], load_json(given.verdict)
        results |= {"refused": refused}
        results["shares"] = {name: shares(some, refused[name]) for name, some in results["items"].items()}
    else:
        model = MiniCOIL.load(given.model, threads=1)
        results = {"items": {Path(folder).name: items(model, folder, given.cache) for folder in given.beir}}
    save_record(given.out, results)


if __name__ == "__main__":
    main()
