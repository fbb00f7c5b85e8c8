"""Rules that add a list of dense hits and a list of words' hits: which one adds up best?

Each takes the best hundred of both lists, as a search does. The last two also know what an engine does not
give without a second question: the score of a hit in the other list, or of all documents.
"""

import numpy as np

from minicoil.retrieval.retrieval import DEPTH


def best(scores):
    """The best `DEPTH` documents of scores (documents,), best first."""
    found = np.argsort(-scores, kind="stable")[:DEPTH]
    return found[np.isfinite(scores[found])]


def stretched(values, among):
    """Scores stretched from the list's lowest, 0, to its best, 1."""
    low, high = among.min(), among.max()
    return (values - low) / max(high - low, 1e-9)


def standardised(values, among):
    """Scores less the list's lowest, in standard deviations of the list."""
    return (values - among.min()) / max(among.std(), 1e-9)


def shared(values, among):
    """Scores as shares of the list's best."""
    return values / (among.max() if among.max() > 0 else 1.0)


def added(dense, words, rule, complete=False):
    """{document: score} of two lists of scores (documents,) by one rule, half and half."""
    found = {}
    lists = [(some, best(some)) for some in (dense, words)]
    every = np.union1d(*[at for _, at in lists])
    for some, at in lists:
        if not len(at):
            continue
        asked = every[np.isfinite(some[every])] if complete else at
        for d, value in zip(asked.tolist(), rule(some[asked], some[at]).tolist()):
            found[d] = found.get(d, 0.0) + value / 2
    return found


def over_all(dense, words):
    """{document: score} where all documents' scores are standardised before they are added."""
    words = np.where(np.isfinite(words), words, 0)
    total = sum((some - some.mean()) / max(some.std(), 1e-9) for some in (dense, words))
    return {d: float(total[d]) for d in best(total).tolist()}


RULES = {
    "stretched": lambda dense, words: added(dense, words, stretched),
    "standardised": lambda dense, words: added(dense, words, standardised),
    "shares of the best": lambda dense, words: added(dense, words, shared),
    "stretched, completed": lambda dense, words: added(dense, words, stretched, complete=True),
    "all standardised": over_all,
}  # fmt: skip


def mixed_runs(rule, dense, words, names, ids):
    """{query: {document: falling rank score}} of scores (queries, documents) mixed by one of `RULES`."""
    found = {}
    for q, name in enumerate(ids):
        total = RULES[rule](dense[q], words[q])
        order = sorted(total, key=lambda d: (-total[d], d))
        found[name] = {names[d]: float(len(order) - rank) for rank, d in enumerate(order)}
    return found
