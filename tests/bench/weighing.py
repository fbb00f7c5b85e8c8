"""How much should a word's meaning weigh? Three ideas for the score of the package's model, none trained.

    python tests/bench/weighing.py --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                   --cache outputs/cache

The model, its numbers and the index stay. BM25's weight of a word that query and document share is multiplied
by a factor, today the scalar product of the word's numbers. Each idea makes another factor or another IDF of
what the collection itself shows, without a label, and has some settings:

- `sharpness`: the product to a power; one for all collections, or one for each so that the products of pairs
  of its documents spread equally (standard deviation over mean);
- `centred`: the product less the query's mean product with the word's documents, plus a level: 1, as in BM25,
  or a power of that mean;
- `sense idf`: the IDF of the word's sense; the products, added up over its documents, stand for the number of
  documents that have it.

A setting, or the own rule, is chosen by the macro gain on one half of the queries and scored on the other,
both ways round. So no query has a part in choosing what scores it. Gains are those over the model's own rule.
"""

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
from record import save_record
from search import halved, read

from minicoil import MiniCOIL
from minicoil.learning.algebra import apply
from minicoil.retrieval.benchmark import rankings
from minicoil.retrieval.retrieval import (
    add_scores,
    askers_of,
    build_index,
    gain_over,
    measure,
    postings_weights,
    term_vectors,
    terms_of,
)
from minicoil.serving.names import DEFAULT
from minicoil.serving.sparse import idf

OWN = "minicoil"
POWERS = (0.5, 0.75, 1.25, 1.5, 2.0)
SPREADS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # standard deviation over mean that a collection's products get
SEARCHED = np.arange(0.2, 8.01, 0.05)  # powers that may give it to them
WORDS, DOCUMENTS = 1000, 30  # drawn to see a collection's products: words, documents of each


class Matches(NamedTuple):
    """A query word: who asks, BM25's weights without IDF, the word's IDF, products (queries, n) or None."""

    askers: list
    weights: tuple
    idf: float
    products: np.ndarray | None
    documents: int


def read_matches(model, index, asked):
    """[`Matches`] of all words of the queries that a document has."""
    found, average, n = [], float(index.lengths.mean()), len(index.lengths)
    for term, askers in askers_of(index, terms_of(asked, model.vocabulary)).items():
        weights = postings_weights(model, index, term, average)
        rare = float(idf(len(weights.documents), n))
        products = None
        if isinstance(term, int):
            w = model.weights[np.array([term])][0]
            theirs = apply(term_vectors(index.forms, [p.rows for p in index.postings[term]]), w)
            products = apply(term_vectors(asked, [a.rows for a in askers]), w) @ theirs.T
        found.append(Matches(askers, weights._replace(values=weights.values / rare), rare, products, n))
    return found


def seen_products(model, index, seed=0):
    """Products of pairs of documents (pairs,) that share a word, of words drawn at random."""
    rng, found = np.random.default_rng(seed), []
    words = sorted(t for t, some in index.postings.items() if isinstance(t, int) and len(some) > 2)
    for term in rng.permutation(words)[:WORDS].tolist():
        some = index.postings[term]
        drawn = [some[i].rows for i in rng.permutation(len(some))[:DOCUMENTS].tolist()]
        y = apply(term_vectors(index.forms, drawn), model.weights[np.array([term])][0])
        found.append((y @ y.T)[np.triu_indices(len(y), 1)])
    return np.concatenate(found)


def power_for(products, spread):
    """The power that gives products of pairs nearly this standard deviation over their mean."""
    sharp = [np.maximum(products, 0) ** p for p in SEARCHED]
    reached = np.array([values.std() / values.mean() for values in sharp])
    return round(float(SEARCHED[np.abs(reached - spread).argmin()]), 2)


def sharp(power):
    """Products to a power; below 0 they keep their sign."""

    def rule(match):
        return match.idf * np.sign(match.products) * np.abs(match.products) ** power

    return rule


def centred(level, strength):
    """`strength` times the products less their mean, plus that mean to the power `level`."""

    def rule(match):
        mean = match.products.mean(1, keepdims=True)
        return match.idf * (np.maximum(mean, 0) ** level + strength * (match.products - mean))

    return rule


def sense_idf(power, share):
    """The products, times the IDF of the sense: a `share` of it and the rest of the word's."""

    def rule(match):
        containing = (np.maximum(match.products, 0) ** power).sum(1, keepdims=True)
        of_sense = idf(np.clip(containing, 1, None), match.documents)
        return (share * of_sense + (1 - share) * match.idf) * match.products

    return rule


def settings_of(products):
    """{idea: {setting: rule}} for a collection whose pairs of documents have these products."""
    return {
        "sharpness, fixed": {f"power {p:g}": sharp(p) for p in POWERS},
        "sharpness, by spread": {f"spread {s:g}": sharp(power_for(products, s)) for s in SPREADS},
        "centred": {
            f"level {level:g}, strength {strength:g}": centred(level, strength)
            for level in (0, 0.5, 0.75, 1)
            for strength in (0.5, 1, 1.5, 2)
            if (level, strength) != (1, 1)
        },
        "sense idf": {
            f"power {power:g}, share {share:g}": sense_idf(power, share)
            for power in (1, 2)
            for share in (0.5, 1)
        },
    }


def scores_of(matches, rule, shape):
    """Scores (queries, documents) by one rule, -inf where nothing is shared; None scores BM25."""
    scores = np.full(shape, -np.inf, np.float32)
    for match in matches:
        known = rule is not None and match.products is not None
        factor = rule(match) if known else np.full((len(match.askers), 1), match.idf)
        for k, asker in enumerate(match.askers):
            add_scores(scores[asker.query], match.weights, factor[k])
    return scores


def measured(model, collection):
    """({system: {query: nDCG@10}} of BM25, the own rule and all settings, what its products look like)."""
    documents, queries, judged, forms, asked = collection
    index = build_index(forms, model.vocabulary)
    matches, products = read_matches(model, index, asked), seen_products(model, index)
    rules = {"bm25": None, OWN: sharp(1)}
    for idea, some in settings_of(products).items():
        rules |= {f"{idea}: {setting}": rule for setting, rule in some.items()}
    names, ids, found = [d for d, _ in documents], [q for q, _ in queries], {}
    for system, rule in rules.items():
        scores = scores_of(matches, rule, (len(queries), len(documents)))
        found |= measure(rankings({system: scores}, [system], names, ids), judged)["per_query"]
    facts = {
        "mean": float(products.mean()),
        "deviation": float(products.std()),
        "pairs": len(products),
        "powers": {f"{s:g}": power_for(products, s) for s in SPREADS},
    }
    return found, facts


def chosen_apart(found, rows):
    """(the rows chosen on either half, {collection: {query: nDCG@10}} each query by the other half's row)."""
    chosen, kept = [], {name: {} for name in found}
    for half in (0, 1):
        seen = [halved(f, half, (OWN, *rows)) for f in found.values()]
        best = max(rows, key=lambda row: gain_over(seen, row, OWN)[0])
        chosen.append(best)
        for name, f in found.items():
            kept[name] |= halved(f, 1 - half, (best,))[best]
    return chosen, kept


def idea_gains(found, idea):
    """An idea's gains over the own rule: of every setting, and of settings chosen on the other half."""
    rows = [row for row in next(iter(found.values())) if row.startswith(f"{idea}: ")]
    chosen, kept = chosen_apart(found, [OWN, *rows])
    apart = [{OWN: found[name][OWN], idea: kept[name]} for name in found]
    settings = {
        row.split(": ")[1]: {
            "macro": gain_over(found.values(), row, OWN),
            "collections": {name: gain_over([f], row, OWN) for name, f in found.items()},
        }
        for row in rows
    }
    return {
        "chosen": [row.split(": ")[-1] for row in chosen],
        "macro": gain_over(apart, idea, OWN),
        "collections": {name: gain_over([f], idea, OWN) for name, f in zip(found, apart)},
        "settings": settings,
    }


def main():
    """Measure all settings on all collections, write the record."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", default=DEFAULT)
    ask.add_argument("--beir", action="append", required=True)
    ask.add_argument("--cache", default="outputs/cache")
    ask.add_argument("--out", default="results/weighing.json")
    given = ask.parse_args()
    model, found, facts = MiniCOIL.load(given.model, threads=1), {}, {}
    for folder in given.beir:
        found[Path(folder).name], facts[Path(folder).name] = measured(model, read(model, folder, given.cache))
    ideas = ("sharpness, fixed", "sharpness, by spread", "centred", "sense idf")
    save_record(
        given.out,
        {
            "words": len(model.vocabulary.words),
            "products": facts,
            "own": {
                "macro": gain_over(found.values(), OWN),
                "collections": {name: gain_over([f], OWN) for name, f in found.items()},
            },
            "ideas": {idea: idea_gains(found, idea) for idea in ideas},
        },
    )


if __name__ == "__main__":
    main()
