"""Other ways to expand, one thing changed at a time: for the curve of `expansion.py`.

All documents pass once. What a document's words pull in is computed once for each measure of nearness, and
each way takes its own share of it.
"""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minicoil.learning.algebra import apply
from minicoil.retrieval.expanded_documents import FROM_RIDGE, KEPT, OWN, heaviest, only_heaviest
from minicoil.retrieval.expanded_queries import AGREED, ASKED, BROUGHT, LONG
from minicoil.retrieval.retrieval import postings_weights, term_vectors
from minicoil.retrieval.thesaurus import COMMON, FEW, NEAR
from minicoil.serving.centroids import half, main_directions
from minicoil.serving.sparse import unit_rows


class Way(NamedTuple):
    """How documents are given words; the defaults are the package's.

    Args:
        near: the threshold of nearness.
        power: what nearness above it is raised to.
        together: how a document's words agree on one: `max`, `sum`, or the root of the `squares`.
        share: of the near words' weights.
        ridge: of the weights that the map expects of absent words.
        own: of the weights that it expects of the document's own words.
        most: words that a document is given, at most.
        common: share of the documents beyond which a word stands for none.
        left_out: `numbers`, `names` too, or `nothing`.
        vectors: what nearness is computed with: `own`, `int8`, `general` or `input`.
    """

    near: float = NEAR
    power: float = 1.0
    together: str = "max"
    share: float = 1.0
    ridge: float = 1.0
    own: float = OWN
    most: int = KEPT
    common: float = COMMON
    left_out: str = "numbers"
    vectors: str = "own"


WAYS = {
    "as in the package": Way(),
    "20 kept": Way(most=20), "40 kept": Way(most=40), "160 kept": Way(most=160), "all kept": Way(most=10**6),
    "threshold .1": Way(near=0.1), "threshold .3": Way(near=0.3), "threshold .4": Way(near=0.4),
    "near words by half": Way(share=0.5), "near words twice": Way(share=2.0),
    "nearness squared": Way(power=2.0), "sum": Way(together="sum"),
    "agreeing words": Way(together="squares"),
    "own words unchanged": Way(own=0.0), "own words by half": Way(own=0.5), "own words twice": Way(own=2.0),
    "near words only": Way(own=0.0, ridge=0.0), "ridge only, own words too": Way(share=0.0),
    "own words only": Way(share=0.0, ridge=0.0),
    "common words too": Way(common=1.0), "words of a fifth of the documents too": Way(common=0.2),
    "words of a twentieth of the documents at most": Way(common=0.05),
    "numbers too": Way(left_out="nothing"), "names left out": Way(left_out="names"),
    "centroids in int8": Way(vectors="int8"), "general text alone": Way(vectors="general"),
    "general text alone, near words only": Way(vectors="general", own=0.0, ridge=0.0),
    "input embeddings": Way(vectors="input", own=0.0, ridge=0.0),
}  # fmt: skip


ONLY_SMALL = ("all kept", "threshold .4", "sum", "centroids in int8", "general text alone",
              "general text alone, near words only", "input embeddings")  # fmt: skip


class Pull(NamedTuple):
    """What a way shares with others: computed once a document for all of them."""

    vectors: str
    near: float
    power: float
    together: str


def pull_of(way):
    """The `Pull` of a way."""
    return Pull(way.vectors, way.near, way.power, way.together)


def pulled(pull, cosines, weights):
    """(n,) what words (m,) of weights pull in, by their cosines (m, n)."""
    weights = weights[:, None].astype(np.float32)
    if pull.power == 1.0 and pull.together == "max":
        product = cosines * weights
        product -= pull.near * weights
        return np.maximum(product.max(0), 0)
    above = np.maximum(cosines - pull.near, 0)
    if pull.power != 1.0:
        above = above**pull.power * (1 - pull.near) ** (1 - pull.power)
    above *= weights
    if pull.together == "sum":
        return above.sum(0)
    return above.max(0) if pull.together == "max" else np.sqrt((above**2).sum(0))


class Measure(NamedTuple):
    """A measure of nearness: a thesaurus with its centroids, and other embeddings of a document's terms."""

    thesaurus: Any
    units: Any = None

    def cosines(self, placed):
        """(m, n) of a document's terms with all centroids."""
        rows = placed.embeddings if self.units is None else self.units(placed.terms)
        return self.thesaurus.nearness(rows).astype(np.float32)


def in_int8(rows):
    """Rows, each rounded to 127 steps of its largest number."""
    scales = np.maximum(np.abs(rows).max(1, keepdims=True), 1e-9) / 127
    return unit_rows(np.round(rows / scales) * scales).astype(np.float32)


def by_general_text(thesaurus, centroids):
    """The thesaurus with the places of its words in general text alone; stems have none."""
    known = np.array([t - 1 if isinstance(t, int) else -1 for t in thesaurus.terms])
    rows = unit_rows(centroids.vectors)[known] * (known >= 0)[:, None]
    places = {"center": centroids.center, "basis": centroids.basis, "centroids": rows.astype(np.float32)}
    return replace(thesaurus, **places)


def by_input_embeddings(thesaurus, of):
    """The measure of the transformer's input embeddings; `of` gives those of terms."""
    rows = of(thesaurus.terms)
    center = half(np.average(rows, axis=0, weights=thesaurus.counts))
    basis = half(main_directions(unit_rows(rows - center)))
    apart = unit_rows((rows - center) @ basis)
    return Measure(replace(thesaurus, center=center, basis=basis, centroids=apart), of)


def input_embeddings(model):
    """{term: the mean of its pieces' input embeddings in the transformer}, a function of terms."""
    from onnx import load, numpy_helper

    from minicoil.serving.directory import graph_of

    graph = graph_of(model.folder, model.info)
    stored = load(graph) if isinstance(graph, Path) else load_weightless(graph)
    table = next(numpy_helper.to_array(t) for t in stored.graph.initializer if t.dims[:1] == [30522])
    known = {}

    def of(terms):
        for term in terms:
            if term not in known:
                name = model.words[term - 1] if isinstance(term, int) else term
                ids = model.tokenizer.encode(name, add_special_tokens=False).ids
                known[term] = table[ids].astype(np.float32).mean(0)
        return np.array([known[term] for term in terms])

    return of


def load_weightless(graph):
    """The graph of the box's transformer, with its weights."""
    import tempfile

    from onnx import load

    from minicoil.serving.graph import write_graph

    with tempfile.TemporaryDirectory() as folder:
        write_graph(Path(folder) / "model.onnx", graph)
        return load(Path(folder) / "model.onnx")


def name_like(model, texts, terms):
    """(n,) whether most occurrences of a term inside a sentence begin with a capital."""
    upper, every, known = Counter(), Counter(), {}
    for text in texts:
        for found in re.finditer(r"(?<=[a-z,;:] )[^\W\d_]+", text):
            form = found.group().lower()
            if form not in known:
                looked = model.vocabulary.look_up(form)
                known[form] = (looked.id,) if looked.id else looked.stems
            for term in known[form]:
                every[term] += 1
                upper[term] += found.group()[0].isupper()
    return np.array([2 * upper[term] > every[term] for term in terms], bool)


def allowed(read, way, names):
    """(n,) the words that a document may be given."""
    thesaurus = read.thesaurus
    digits = np.array([any(map(str.isdigit, name)) for name in thesaurus.names], bool)
    may = thesaurus.counts <= max(FEW, way.common * thesaurus.documents)
    if way.left_out != "nothing":
        may = may & ~digits
    return may & ~names if way.left_out == "names" else may


def query_weights(read):
    """The thesaurus rows that queries ask for (a,), and the IDF of those of each query (a, queries)."""
    asked = [{read.thesaurus.rows[t] for t in terms if t in read.thesaurus.rows} for terms in read.queries]
    rows = np.array(sorted(set().union(*asked)), np.int64)
    place = {row: i for i, row in enumerate(rows.tolist())}
    weights = np.zeros((len(rows), len(asked)), np.float32)
    for q, mine in enumerate(asked):
        for row in mine:
            weights[place[row], q] = read.thesaurus.rarity(read.thesaurus.terms[row])
    return rows, weights


def given_weights(way, pull, best, may):
    """(n,) the weights of the words that a document is given, others 0; `best` are those of the map."""
    total = way.share * pull * may + way.ridge * best
    found, rows = np.zeros_like(total), heaviest(total, way.most)
    found[rows] = total[rows]
    return found


def document_ways(read, measures, ways=WAYS):
    """{way: scores (queries, documents) of BM25} of documents expanded in each way."""
    ways = {name: way for name, way in ways.items() if way.vectors in measures}
    names = name_like(read.model, [text for _, text in read.found.documents], read.thesaurus.terms)
    may = {name: allowed(read, way, names) for name, way in ways.items()}
    rows, weights = query_weights(read)
    shape = (len(read.queries), len(read.documents))
    own, found = np.zeros(shape, np.float32), {name: np.zeros(shape, np.float32) for name in ways}
    for d, document in enumerate(read.documents):
        if not document.own.terms:
            continue
        expected = read.thesaurus.expected(read.forms.dense[d])
        has = np.zeros(len(expected), bool)
        has[[read.thesaurus.rows[t] for t in document.own.terms if t in read.thesaurus.rows]] = True
        own[:, d] = (expected * has)[rows] @ weights
        cosines = {name: measure.cosines(document.own) for name, measure in measures.items()}
        pulls, best = {}, {}
        for name, way in ways.items():
            pull, left = pull_of(way), (way.common, way.left_out)
            if pull not in pulls:
                pulls[pull] = pulled(pull, cosines[pull.vectors], document.weights)
            if left not in best:
                best[left] = only_heaviest(expected * (may[name] & ~has), FROM_RIDGE)
            given = given_weights(way, pulls[pull], best[left], may[name] & ~has)
            found[name][:, d] = given[rows] @ weights
    plain = np.where(np.isinf(read.plain["bm25"]), 0, read.plain["bm25"])
    return {name: plain + ways[name].own * own + given for name, given in found.items()}


class Asking(NamedTuple):
    """How queries bring their neighbours along; the defaults are the package's.

    Args:
        near: the threshold of nearness.
        most: neighbours of a word, at most.
        share: of their weights.
        words: with more words than this a query's neighbours count less, in proportion; 0: always the same.
        power: what nearness above the threshold is raised to.
        agree: of a neighbour's nearness to the query's other words, added to its nearness.
        common: share of the documents beyond which a word stands for none.
        summed: whether all neighbours count, everywhere, as in an engine.
        context: whether nearness is that of the embedding in the query, not of the word's own centroid.
    """

    near: float = ASKED
    most: int = BROUGHT
    share: float = 1.0
    words: int = LONG
    power: float = 1.0
    agree: float = AGREED
    common: float = COMMON
    summed: bool = False
    context: bool = True


ASKINGS = {
    "as in the package": Asking(),
    "3 words": Asking(most=3), "8 words": Asking(most=8), "24 words": Asking(most=24),
    "threshold .2": Asking(near=0.2), "threshold .3": Asking(near=0.3), "threshold .5": Asking(near=0.5),
    "half": Asking(share=0.5), "twice": Asking(share=2.0),
    "of one weight for all lengths": Asking(words=0), "less beyond 4 words": Asking(words=4),
    "words do not agree": Asking(agree=0.0), "words agree half as much": Asking(agree=AGREED / 2),
    "one weight, no agreement, 8 words": Asking(most=8, words=0, agree=0.0),
    "nearness squared": Asking(power=2.0), "words of a fifth of the documents too": Asking(common=0.2),
    "common words too": Asking(common=1.0), "without context": Asking(context=False),
    "summed, half": Asking(share=0.5, summed=True), "24 words, summed": Asking(most=24, summed=True),
}  # fmt: skip


class Pulled(NamedTuple):
    """A neighbour of a query's word: its row in the thesaurus, and what its documents' weights count."""

    row: int
    share: float


def asked_words(way, cosines, own, may):
    """[[Pulled]] of each word of a query, of cosines (words, n); `may` (n,) says who may stand for others."""
    nearness = cosines.copy()
    if way.agree and len(own) > 1:
        above = np.maximum(cosines - NEAR, 0)
        nearness += way.agree * (above.sum(0) - above) / (len(own) - 1) ** 0.5
    nearness[:, [row for row in own if row is not None]] = -1
    nearness[:, ~may] = -1
    share = way.share * (min(1.0, way.words / len(own)) if way.words else 1.0)
    found = []
    for mine in nearness:
        best = np.argsort(-mine, kind="stable")[: way.most]
        best = best[mine[best] > way.near]
        above = (mine[best] - way.near) ** way.power * (1 - way.near) ** (1 - way.power)
        found.append([Pulled(int(row), float(share * x)) for row, x in zip(best, above)])
    return found


class Postings:
    """BM25 weights and meanings of terms in a collection, each computed once."""

    def __init__(self, read):
        self.read, self.known, self.numbers = read, {}, {}

    def weights(self, term):
        """The documents of a term, and its weights without IDF."""
        if term not in self.known:
            at, values = postings_weights(self.read.model, self.read.index, term, self.read.average)
            self.known[term] = at, values / self.read.thesaurus.rarity(term)
        return self.known[term]

    def meanings(self, term, embedding):
        """Cosines of what a term means in an embedding with what it means in its documents."""
        if isinstance(term, str):
            return 1.0
        w = self.read.model.weights[np.array([term])][0]
        if term not in self.numbers:
            rows = [p.rows for p in self.read.index.postings[term]]
            self.numbers[term] = apply(term_vectors(self.read.forms, rows), w)
        return np.maximum(self.numbers[term] @ apply(embedding[None], w)[0], 0)


def widened(read, way, postings, rule="bm25"):
    """Scores (queries, documents) where queries bring their neighbours along in one way."""
    found = np.where(np.isinf(read.plain[rule]), 0, read.plain[rule])
    may = allowed(read, Way(common=way.common), None)
    for q, terms in enumerate(read.queries):
        if not terms:
            continue
        embeddings = term_vectors(read.asked, [seen.rows for seen in terms.values()])
        own = [read.thesaurus.rows.get(term) for term in terms]
        cosines = read.thesaurus.nearness(embeddings)
        if not way.context:
            places = read.thesaurus.centroids
            cosines = [c if row is None else places @ places[row] for c, row in zip(cosines, own)]
            cosines = np.array(cosines)
        for term, embedding, near in zip(terms, embeddings, asked_words(way, cosines, own, may)):
            found[q] += gains_of(read, way, postings, rule, term, embedding, near)
    return found


def gains_of(read, way, postings, rule, term, embedding, near):
    """What a query's word earns each document by its neighbours."""
    gain, rarity = np.zeros(len(read.index.lengths)), read.thesaurus.rarity(term)
    for row, share in near:
        neighbour = read.thesaurus.terms[row]
        at, values = postings.weights(neighbour)
        more = rarity * share * values
        if rule == "minicoil":
            more = more * postings.meanings(neighbour, embedding)
        gain[at] = gain[at] + more if way.summed else np.maximum(gain[at], more)
    if term in read.index.postings and not way.summed:
        gain[postings.weights(term)[0]] = 0
    return gain


def query_ways(read, askings=ASKINGS):
    """{way: scores (queries, documents) of BM25} of queries that bring their neighbours along in each way."""
    postings = Postings(read)
    return {name: widened(read, way, postings) for name, way in askings.items()}
