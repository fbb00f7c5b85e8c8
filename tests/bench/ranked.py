"""Rankings of other engines against exact scores, ties aside."""

import numpy as np

from minicoil.retrieval.retrieval import OURS
from minicoil.serving.sparse import idf


def exact_scores(model, texts, queries, **given):
    """Scores (queries, documents) by the inner product of `MiniCOIL`'s own vectors, times Qdrant's IDF.

    -inf where nothing is shared.
    """
    documents = [v.as_dict() for v in model.embed(texts, **OURS, **given)]
    containing = {}
    for document in documents:
        for index in document:
            containing[index] = containing.get(index, 0) + 1
    scores = np.full((len(queries), len(texts)), -np.inf)
    for q, vector in enumerate(model.query_embed(queries, **OURS, **given)):
        known = [(i, value) for i, value in vector.as_dict().items() if i in containing]
        asked = {i: value * idf(containing[i], len(texts)) for i, value in known}
        for d, document in enumerate(documents):
            shared = asked.keys() & document.keys()
            if shared:
                scores[q, d] = sum(asked[index] * document[index] for index in shared)
    return scores


def same_top(scores, found, limit=10, close=1e-4):
    """Whether document numbers `found` are a best list by exact `scores` (documents,), ties in any order.

    A document with -inf must not be in it; an engine may leave out those that score 0 or less.
    """
    best = np.sort(scores[np.isfinite(scores)])[::-1][:limit]
    mine = np.array([scores[number] for number in found])
    if len(mine) > len(best):
        return False
    if len(set(found)) < len(found):
        return False
    missing = best[len(mine) :]
    return bool(np.allclose(mine, best[: len(mine)], rtol=close, atol=close) and (missing <= close).all())


def kept_by_lucene(values):
    """What Lucene keeps of a feature's values: sign, exponent and 8 further bits, the rest cut off."""
    bits = np.asarray(values, np.float32).view(np.int32)
    return ((bits >> 15) << 15).astype(np.int32).view(np.float32).astype(float)
