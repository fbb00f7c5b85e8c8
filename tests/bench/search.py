"""Does it help a search? Every figure of the research chapters on search.

They come from judged collections, and from one that is made of labelled senses.

    python tests/bench/search.py --run outputs/en --beir ir/cranfield --beir ir/medline --beir ir/scifact \\
                                 --beir ir/cacm --senses coarsewsd10.jsonl.gz --senses homographs.jsonl.gz \\
                                 --cache outputs/cache --out results/search.json

RUN is a finished run with a broad vocabulary (`make model-en`). Other objectives and numbers of dimensions
are trained from its stored token embeddings, for the words that queries ask. What the transformer says of a
collection is kept in CACHE. A part can be left out with --skip; its old figures in OUT stay.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from record import save_record

from minicoil import MiniCOIL
from minicoil.learning.fit import FIT, adapted_goal, train_fit
from minicoil.learning.objectives import train_group
from minicoil.retrieval.collect_calls import engine_vector
from minicoil.retrieval.judged import read_judged
from minicoil.retrieval.retrieval import LEXICAL, build_index, gain_over, measure, score_all, terms_of
from minicoil.retrieval.rivals import outside_scores
from minicoil.retrieval.systems import MIXES, rankings
from minicoil.runs.files import load_json, load_npy, progress
from minicoil.runs.run import open_run
from minicoil.serving.windows import read_forms
from minicoil.stages.samples import supplied, word_samples
from minicoil.stages.training import group_words

ORDINARY = (
    "cranfield",
    "medline",
    "scifact",
)  # cacm's gain is inflated by unique query terms: it is reported, not averaged
WAYS = {f"{objective}, {dim}": (objective, dim) for objective in ("fit", "graph", "joint") for dim in (4, 8)}
FITTED = ("fit, 4", "fit, 8")  # of `WAYS`: those that are trained again on a collection's documents
SYSTEMS = (*LEXICAL, "dense", *MIXES, "fastembed_bm25", "bm25s")
PARTS = ("collections", "layers", "senses", "adapted", "parity", "costs")


def read(model, folder, cache):
    """A judged collection with its forms: documents, queries, judged, forms, asked."""
    documents, queries, judged = read_judged(folder)
    texts = [[text for _, text in some] for some in (documents, queries)]
    forms, asked = (read_forms(model, some, cache, normalize=True) for some in texts)
    return documents, queries, judged, forms, asked


def shards_of(run, needed):
    """(numbers, samples) of the words `needed`, a shard at a time."""
    for number, shard in enumerate(progress(run.stage("tokens").manifest["shards"], "read")):
        numbered = enumerate(word_samples(run, number), shard["first_word"])
        found = {i: sample for i, sample in numbered if i in needed}
        if found:
            yield list(found), list(found.values())


def train_ways(run, needed, ways=WAYS, bases=None):
    """{way: encoders (words + 1, h, dim)}, zeros for words that are not `needed`, from the run's token
    embeddings.

    The token embeddings are of the layers that the run reads. With `bases` {way: {word: encoder}} the words
    are trained again.
    """
    tokens = run.stage("tokens")
    pooled, size = load_npy(tokens.path / "pooled.npy"), tokens.manifest["hidden_size"]
    words = sum(shard["words"] for shard in tokens.manifest["shards"])
    found = {way: np.zeros((words + 1, size, dim), np.float32) for way, (_, dim) in ways.items()}
    for numbers, samples in shards_of(run, needed):
        for way, (objective, dim) in ways.items():
            for group in group_words([len(s.tokens) for s in samples], size, dim, objective):
                chosen, at = [samples[i] for i in group], [numbers[i] for i in group]
                if bases:
                    chosen = [replace(s, base=bases[way][i]) for s, i in zip(chosen, at)]
                chosen = supplied(run, chosen, objective)
                found[way][at] = train_group(objective, chosen, dim, pooled)
    return found


def every_way(model, ways, collection, outside=True):
    """All systems and all ways on one collection: {results, gain, per_query}, ways in hybrids too."""
    documents, queries, judged, forms, asked = collection
    index = build_index(forms, model.vocabulary)
    scores = score_all(model, index, asked, (*LEXICAL, *ways), more=ways)
    scores["dense"] = asked.dense @ forms.dense.T
    if outside:
        more, _ = outside_scores(
            model, [t for _, t in documents], [t for _, t in queries], SYSTEMS, float(index.lengths.mean())
        )
        scores |= more
    names, ids = [n for n, _ in documents], [q for q, _ in queries]
    runs = rankings(
        scores, [s for s in (*SYSTEMS, *ways) if s in scores or s.startswith(("hybrid", "mix"))], names, ids
    )
    for way in ways:
        mixed = rankings(
            {"dense": scores["dense"], "minicoil": scores[way]},
            ("hybrid_minicoil", "mix_minicoil"),
            names,
            ids,
        )
        runs |= {f"{kind.split('_')[0]}, {way}": r for kind, r in mixed.items()}
    known = np.mean([isinstance(t, int) for terms in terms_of(asked, model.vocabulary) for t in terms])
    return {
        "queries": len(queries),
        "documents": len(documents),
        "known": float(known),
        "avg_len": float(index.lengths.mean()),
        **measure(runs, judged),
    }


def halved(per_query, keep, systems):
    """Every second query of {system: {query: value}}, for some systems."""
    return {
        s: {q: v for k, (q, v) in enumerate(sorted(per_query[s].items())) if k % 2 == keep} for s in systems
    }


def halves(found, ways):
    """The best way by macro gain on one half of the queries, and its gain on the other, both ways round."""
    parts = []
    for h in (0, 1):
        chosen_on, scored_on = [
            [halved(f, keep, ("bm25", *ways)) for f in of_ordinary(found)] for keep in (h, 1 - h)
        ]
        gains = {w: gain_over(chosen_on, w)[0] for w in ways}
        best = max(gains, key=gains.get)
        parts.append({"chosen": best, "gain": gain_over(scored_on, best)})
    return parts


def by_kind(found, judged_kind):
    """Gains of the sense collection's queries of one kind (sentence or window)."""
    per_query = {
        s: {q: v for q, v in scores.items() if q.startswith(judged_kind)}
        for s, scores in found["per_query"].items()
    }
    return {
        s: {"ndcg@10": float(np.mean(list(v.values()))), "gain": gain_over([per_query], s)}
        for s, v in per_query.items()
    }


def qdrant_parity(model, documents, queries, forms, asked, depth=10):
    """Do Qdrant's embedded engine and the benchmark's numpy rank alike? Ties are compared as sets."""
    from minicoil.retrieval.search import build_collection, dense_width, open_collection, search

    index = build_index(forms, model.vocabulary)
    expected = score_all(model, index, asked, ("minicoil",), avg_len=round(float(index.lengths.mean()), 2))[
        "minicoil"
    ]
    names, same = {n: i for i, (n, _) in enumerate(documents)}, 0
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        build_collection(folder, model, documents)
        seconds = time.perf_counter() - begin
        with open_collection(folder, dense_width(model)) as home:
            for q, (_, text) in enumerate(queries):
                hits = search(home, model, text, depth)
                same += agrees([(names[h.id], h.score) for h in hits], expected[q], depth)
    return {
        "queries": len(queries),
        "same": int(same),
        "documents": len(documents),
        "seconds_to_build": round(seconds, 1),
    }


def agrees(hits, scores, depth, close=2e-3):
    """Whether [(document, score)] are a best `depth` of `scores`: each score is right, and nothing left out
    is clearly better.

    To two thousandths of the best score: in a collection with documents without a word, as cranfield's two,
    Qdrant does not count these in its IDF."""
    close *= max((s for _, s in hits), default=1.0)
    finite = np.flatnonzero(np.isfinite(scores))
    if len(hits) != min(depth, len(finite)):
        return False
    right = all(abs(scores[i] - s) < close for i, s in hits)
    rest = np.setdiff1d(finite, [i for i, _ in hits])
    ordered = all(
        a >= b - close for a, b in zip([scores[i] for i, _ in hits], [scores[i] for i, _ in hits][1:])
    )
    return (
        right and ordered and (not len(rest) or scores[rest].max() <= min(scores[i] for i, _ in hits) + close)
    )


def index_costs(run, model, n=100_000, n_queries=300, dims=(4, 8)):
    """Bytes on disk and milliseconds a query in Qdrant Edge: BM25 sparse, sparse with 4 and 8 numbers, dense
    with HNSW.

    Sentences of the run, their real words and stored sentence embeddings; the numbers of meaning are random
    unit vectors, which cost the same."""
    import pyarrow.parquet as pq

    from minicoil.serving.sparse import Reading, SparseEmbedding, bm25_weight, unknown_index, unknown_shift

    targets, texts = run.stage("targets"), {}
    for part in run.stage("sentences").parts("parquet"):
        table = pq.read_table(part, columns=["sentence_id", "text"])
        texts |= dict(zip(table["sentence_id"].to_pylist(), table["text"].to_pylist()))
    ids = np.concatenate([load_npy(targets.path / s["ids"]) for s in targets.manifest["shards"]])[:n]
    dense = np.concatenate([load_npy(targets.path / s["file"]) for s in targets.manifest["shards"]])[
        :n
    ].astype(np.float32)
    readings = [
        model.read(e.ids)
        for a in range(0, len(ids), 5000)
        for e in model.tokenizer.encode_batch([texts[i] for i in ids[a : a + 5000].tolist()])
    ]
    rng, lengths = np.random.default_rng(0), [read.length for read in readings]
    average = float(np.mean(lengths))

    def vectors(dim, some, query=False):
        shift, made = unknown_shift(len(model.words), max(dim, 1)), []
        for read, length in some:

            def weigh(c, length=length):
                return 1.0 if query else bm25_weight(c, length, avg_len=average)

            meaning = rng.normal(size=(len(read.counts), max(dim, 1))) + np.eye(max(dim, 1))[0] * 3
            meaning = (
                meaning / np.linalg.norm(meaning, axis=1, keepdims=True)
                if dim
                else np.ones((len(read.counts), 1))
            )
            at = [w * max(dim, 1) + j for w in read.counts for j in range(max(dim, 1))] + [
                unknown_index(s, shift) for s in read.stems
            ]
            values = np.concatenate(
                [
                    (meaning * np.array([weigh(c) for c in read.counts.values()]).reshape(-1, 1)).ravel(),
                    [weigh(c) for c in read.stems.values()],
                ]
            )
            made.append(SparseEmbedding(np.array(at, np.int32), values.astype(np.float32)))
        return made

    some = list(zip(readings, lengths))
    queries = [
        Reading(dict(list(read.counts.items())[:3]), dict(list(read.stems.items())[:2]))
        for read in readings[:n_queries]
    ]
    found = {
        f"sparse {dim}" if dim else "BM25 sparse": engine_costs(
            vectors(dim, some), vectors(dim, [(q, 5) for q in queries], query=True)
        )
        for dim in (0, *dims)
    }
    noise = dense[:n_queries] + 0.03 * rng.normal(size=dense[:n_queries].shape).astype(np.float32)
    return {
        "points": len(ids),
        "words_a_query": 5,
        "numbers_a_point": {k: v.pop("numbers") for k, v in found.items()},
        **found,
        "dense HNSW": engine_costs(list(dense), list(noise), dense=True),
    }


def engine_costs(vectors, queries, dense=False, rounds=5):
    """MB on disk, seconds to build, median and 95 % milliseconds a query of one embedded index."""
    import qdrant_edge as q

    with tempfile.TemporaryDirectory() as folder:
        config = dict(
            vectors={"v": q.EdgeVectorParams(size=len(vectors[0]), distance=q.Distance.Cosine)}
            if dense
            else {},
            sparse_vectors={} if dense else {"v": q.EdgeSparseVectorParams(modifier=q.Modifier.Idf)},
        )
        shard = q.EdgeShard.create(
            folder,
            q.EdgeConfig(
                **config,
                wal_enabled=False,
                optimizers=q.EdgeOptimizersConfig(indexing_threshold=1000, default_segment_number=1),
            ),
        )
        begin = time.perf_counter()
        for a in range(0, len(vectors), 5000):
            shard.update(
                q.UpdateOperation.upsert_points(
                    [
                        q.Point(id=a + i, payload={}, vector={"v": engine_vector(q, v)})
                        for i, v in enumerate(vectors[a : a + 5000])
                    ]
                )
            )
        shard.flush()
        shard.optimize()
        built, took = time.perf_counter() - begin, []
        asked = [
            q.QueryRequest(limit=10, query=q.Query.Nearest(engine_vector(q, v), using="v")) for v in queries
        ]
        for _ in range(rounds):
            for request in asked:
                begin = time.perf_counter()
                shard.query(request)
                took.append(1000 * (time.perf_counter() - begin))
        shard.flush()
        shard.close()
        size = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file() and "wal" not in f.parts)
        kept = sum(
            f.stat().st_blocks * 512 for f in Path(folder).rglob("*") if f.is_file() and "wal" not in f.parts
        )
    numbers = {} if dense else {"numbers": round(float(np.mean([len(v.indices) for v in vectors])), 1)}
    return {
        "MB": round(size / 1e6, 1),
        "MB_on_disk": round(kept / 1e6, 1),
        "seconds_to_build": round(built, 1),
        "ms": round(float(np.median(took)), 3),
        "ms_95": round(float(np.percentile(took, 95)), 3),
        **numbers,
    }


def own_words(model, ways, documents, folder):
    """A run on the collection's own sentences, as `--start-from` makes it, and two dicts of words.

    The first maps the run's words with enough sentences to the model's, the second has those of `ways`.
    """
    import dataclasses

    from minicoil.commands.chain import from_model
    from minicoil.stages.model import ADAPT_LEAST

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "documents.txt").write_text(
        "\n".join(" ".join(t.split()) for _, t in documents), encoding="utf-8"
    )
    given = from_model(
        {"start_from": str(model.folder), "corpus": [str(folder / "documents.txt")], "pictures": 0}
    )
    own = dataclasses.replace(open_run(folder / "run", jobs=2, **given), throw_away=True)
    own.need("senses", "tokens")
    vocabulary = load_json(own.stage("sentences").path / "vocabulary.json")
    enough = {
        i: model.vocabulary.ids[w]
        for i, w in enumerate(vocabulary["words"], 1)
        if vocabulary["vocabulary"][w]["sentences"] >= ADAPT_LEAST
    }
    return (
        own,
        enough,
        {i: old for i, old in enough.items() if all(base[old].any() for base in ways.values())},
    )


def adapted_ways(own, words, ways):
    """The ways trained again on the sentences of the run `own`, for `words` {its word: the model's}.

    The others stay.
    """
    trained = train_ways(
        own,
        set(words),
        {w: WAYS[w] for w in ways},
        {way: {i: base[old] for i, old in words.items()} for way, base in ways.items()},
    )
    found = {f"{way}, adapted": base.copy() for way, base in ways.items()}
    for way in ways:
        found[f"{way}, adapted"][list(words.values())] = trained[way][list(words)]
    return found


def adapted_gain(model, ways, collection, folder):
    """One collection, its words trained again on its own documents: {words, gain over BM25, per_query}."""
    documents, queries, judged, forms, asked = collection
    own, enough, words = own_words(model, ways, documents, folder)
    both = {**ways, **adapted_ways(own, words, ways)}
    scores = score_all(model, build_index(forms, model.vocabulary), asked, ("bm25", *both), more=both)
    found = measure(
        rankings(scores, ["bm25", *both], [d for d, _ in documents], [q for q, _ in queries]), judged
    )
    return {
        "words": len(enough),
        "gain": {w: found["gain"][w] for w in both},
        "per_query": found["per_query"],
    }


def asked_senses(model, index, collection):
    """The queries of the sense collection about words with an encoder.

    Yields (number of the query, its rows of forms by term, the word asked for, the documents with its sense).
    """
    documents, queries, judged, _, asked = collection
    names = {n: i for i, (n, _) in enumerate(documents)}
    for number, ((q, _), terms) in enumerate(zip(queries, terms_of(asked, model.vocabulary))):
        wanted = {names[d] for d in judged[q]}
        having = {t: {p.document for p in index.postings[t]} for t in terms if t in index.postings}
        shared = [(len(wanted & some), t) for t, some in having.items()]
        best, term = max(shared, key=lambda s: s[0], default=(0, None))
        if best >= 0.9 * len(wanted) and isinstance(term, int):
            yield number, terms, term, wanted


def labels_goal(group, labels):
    """The goal of a word that is trained again and given the labels (n,) of its sentences, -1 where unknown.

    Pairs of one label should be alike and pairs of two should not; mean and deviation stay those of the usual
    goal.
    """
    usual, n, labels = adapted_goal(group), len(labels), torch.as_tensor(labels)
    of_pairs, known = ~torch.eye(n, dtype=torch.bool), labels >= 0
    same = (labels[:, None] == labels[None]).float()
    same[~(known[:, None] & known[None])] = 0.5
    goal = usual.cosines[0, :n, :n]
    standard = (same - same[of_pairs].mean()) / same[of_pairs].std()
    usual.cosines[0, :n, :n] = (goal[of_pairs].mean() + goal[of_pairs].std() * standard).clamp(-1, 1)
    return usual


def with_labels(sample, base, labels, pooled):
    """A word's encoder, trained again from `base` and given the labels: a bound for adapting."""
    objective = replace(FIT, train=partial(train_fit, goal=partial(labels_goal, labels=labels)))
    return train_group(objective, [replace(sample, base=base)], base.shape[1], pooled)[0]


def labelled_ways(model, own, words, ways, adapted, collection):
    """The adapted ways, with those of `words` that queries ask for given the labels of their sentences, and
    how many these are.

    It is a bound for adapting. A record calls these rows `told`.
    """
    import pyarrow.parquet as pq

    parts = [
        pq.read_table(p, columns=["sentence_id", "doc_id"]) for p in own.stage("sentences").parts("parquet")
    ]
    document = {s: d for p in parts for s, d in zip(p["sentence_id"].to_pylist(), p["doc_id"].to_pylist())}
    senses, pooled = {}, load_npy(own.stage("tokens").path / "pooled.npy")
    for *_, term, wanted in asked_senses(model, build_index(collection[3], model.vocabulary), collection):
        senses.setdefault(term, set()).add(frozenset(wanted))
    asked = {i: old for i, old in words.items() if len(senses.get(old, ())) > 1}
    found = {f"{way}, told": adapted[f"{way}, adapted"].copy() for way in ways}
    for numbers, samples in shards_of(own, set(asked)):
        for number, sample in zip(numbers, samples):
            old = asked[number]
            label = {d: k for k, some in enumerate(sorted(senses[old], key=min)) for d in some}
            labels = [label.get(document[s], -1) for s in sample.ids.tolist()]
            for way, base in ways.items():
                found[f"{way}, told"][old] = with_labels(sample, base[old], labels, pooled)
    return found, len(asked)


def within_word(model, ways, collection):
    """AUC within a word on the sense collection.

    Are documents of a query's sense nearer than the word's other documents? Mean over queries.
    """
    from minicoil.retrieval.retrieval import term_vectors
    from minicoil.retrieval.sense_scores import area_under_curve
    from minicoil.serving.batches import encode_means
    from minicoil.serving.sparse import unit_rows

    forms, asked = collection[3:]
    index, scores = build_index(forms, model.vocabulary), {}
    for number, terms, term, wanted in asked_senses(model, index, collection):
        at, _, rows = zip(*index.postings[term])
        positive, full = np.array([i in wanted for i in at]), term_vectors(forms, rows)
        mine = term_vectors(asked, [terms[term].rows])
        views = {
            "token_full": (unit_rows(mine) @ unit_rows(full).T)[0],
            "dense": forms.dense[list(at)] @ asked.dense[number],
        }
        views |= {
            way: (encode_means(mine, [term], w) @ encode_means(full, [term] * len(full), w).T)[0]
            for way, w in ways.items()
        }
        for name, s in views.items():
            scores.setdefault(name, []).append(area_under_curve(s, positive))
    return {
        "queries": len(next(iter(scores.values()), [])),
        "auc": {n: float(np.nanmean(v)) for n, v in scores.items()},
    }


def read_layers(model, texts, forms, layers, cache):
    """Token embeddings (rows of forms, h) that are the mean of other layers than the model's."""
    from minicoil.runs.files import save_npy
    from minicoil.serving.batches import window_rows
    from minicoil.serving.windows import forms_key
    from minicoil.text.normalize import normalize_text
    from minicoil.text.transformer import encode, load_transformer

    path = Path(cache) / forms_key(model, texts) / f"layers-{layers}.npy"
    if not path.exists():
        windows = window_rows(model, [normalize_text(text) for text in texts])
        flat = [(i, row) for i, rows in enumerate(windows) for row in rows]
        at = {
            (t, forms.names[f]): k for k, (t, f) in enumerate(zip(forms.text.tolist(), forms.form.tolist()))
        }
        total, pieces = np.zeros(forms.vectors.shape, np.float32), model.read.pieces
        for batch, _, tokens in encode(
            load_transformer(model.info["input_model"], layers), [row for _, row in flat], precision="auto"
        ):
            for k, token in zip(batch, tokens):
                i, row = flat[k]
                ends = pieces.spans(row).tolist()
                for a, b in zip(ends[:-1], ends[1:]):
                    if (i, form := pieces.glue(row[a:b])) in at:
                        total[at[i, form]] += token[a:b].sum(0)
        save_npy(path, (total / forms.pieces[:, None]).astype(np.float16))
    return load_npy(path, "r")


def layers(model, collection, cache):
    """Gains of the full token embedding by what it is made of: the last layer, or the mean of four."""
    import dataclasses

    from minicoil.text.transformer import LAYERS

    documents, queries, judged, forms, asked = collection
    own, names, runs = model.info["layers"], {1: "last layer", LAYERS: "mean of layers"}, {}
    other = LAYERS if own == 1 else 1
    views = {
        own: (forms.vectors, asked.vectors),
        other: [
            read_layers(model, [t for _, t in some], f, other, cache)
            for some, f in ((documents, forms), (queries, asked))
        ],
    }
    for which, name in names.items():
        a, b = (dataclasses.replace(f, vectors=v) for f, v in zip((forms, asked), views[which]))
        scores = score_all(
            model, build_index(a, model.vocabulary), b, ("bm25", "token_full", "token_full_sharp")
        )
        runs |= {
            "bm25": scores["bm25"],
            f"{name}, cosine": scores["token_full"],
            f"{name}, cosine²": scores["token_full_sharp"],
        }
    return measure(rankings(runs, list(runs), [n for n, _ in documents], [q for q, _ in queries]), judged)


def brief(found):
    """What is recorded of one collection: all but the single queries."""
    return {k: v for k, v in found.items() if k != "per_query"}


def over_base(found, systems, suffix):
    """{way: gain of `way` with `suffix` over `way` itself} on collections [{system: {query: nDCG@10}}]."""
    return {w: gain_over(found, f"{w}, {suffix}", base=w) for w in systems}


def hybrid_gains(found):
    """{mix: gain over the same mix with BM25} on collections [{system: {query: nDCG@10}}]."""
    mixes = [s for s in found[0] if s.startswith(("hybrid", "mix"))]
    return {s: gain_over(found, s, base=f"{s.split('_')[0].split(',')[0]}_bm25") for s in mixes}


def of_ordinary(found):
    """The queries' scores of the collections that are averaged."""
    return [f["per_query"] for name, f in found.items() if name in ORDINARY]


def sorted_gains(per_query, way):
    """A way's gain over BM25 of every query, largest first."""
    return sorted((per_query[way][q] - per_query["bm25"][q] for q in per_query["bm25"]), reverse=True)


def measured_collections(model, ways, collections):
    """What is recorded of all ways on all collections."""
    found = {name: every_way(model, ways, c) for name, c in collections.items()}
    ordinary = of_ordinary(found)
    return {
        "collections": {name: brief(f) for name, f in found.items()},
        "macro": {s: gain_over(ordinary, s) for s in next(iter(found.values()))["per_query"]},
        "hybrid": hybrid_gains(ordinary),
        "halves": {str(dim): halves(found, [w for w in WAYS if w.endswith(str(dim))]) for dim in (4, 8)},
        "gains": {name: {w: sorted_gains(f["per_query"], w) for w in FITTED} for name, f in found.items()},
    }


def measured_layers(model, collections, cache):
    """What is recorded of the layers that a token embedding is made of."""
    found = {name: layers(model, c, cache) for name, c in collections.items()}
    ordinary = of_ordinary(found)
    macro = {s: gain_over(ordinary, s) for s in ordinary[0]}
    return {"collections": {name: f["gain"] for name, f in found.items()}, "macro": macro}


def measured_adapted(model, fitted, collections, cache):
    """What is recorded of training again on each collection's own documents."""
    found = {
        name: adapted_gain(model, fitted, c, Path(cache) / f"adapted-{name}")
        for name, c in collections.items()
    }
    ordinary = of_ordinary(found)
    record = {
        name: {**brief(f), "over_unadapted": over_base([f["per_query"]], fitted, "adapted")}
        for name, f in found.items()
    }
    systems = next(f["gain"] for name, f in found.items() if name in ORDINARY)
    gains = {w: gain_over(ordinary, w) for w in systems}
    return {**record, "macro": {"gain": gains, "over_unadapted": over_base(ordinary, fitted, "adapted")}}


def measured_senses(model, ways, fitted, senses, folder):
    """What is recorded of the sense collection; with a `folder`, also of training again on its documents."""
    adapted, enough, bound, n_labelled = {}, {}, {}, 0
    if folder:
        own, enough, words = own_words(model, fitted, senses[0], folder)
        adapted = adapted_ways(own, words, fitted)
        bound, n_labelled = labelled_ways(model, own, words, fitted, adapted, senses)
    every = {**ways, **adapted, **bound}
    found = every_way(model, every, senses, outside=False)
    return {
        **{key: found[key] for key in ("queries", "documents", "known")},
        "adapted_words": len(enough),
        "told_words": n_labelled,
        "kinds": {kind: by_kind(found, kind) for kind in ("sentence", "window")},
        "all": {s: {"ndcg@10": v["ndcg@10"], "gain": found["gain"][s]} for s, v in found["results"].items()},
        "over_unadapted": over_base([found["per_query"]], fitted if adapted else (), "adapted"),
        "told_over_unadapted": over_base([found["per_query"]], fitted if bound else (), "told"),
        "hybrid": hybrid_gains([found["per_query"]]),
        "within": within_word(model, every, senses),
    }


def measured_parity(model, collections):
    """What is recorded of Qdrant's ranking beside numpy's, on the smallest collection with queries enough."""
    name = min(collections, key=lambda n: len(collections[n][0]) if len(collections[n][1]) >= 200 else 1e9)
    documents, queries, _, forms, asked = collections[name]
    return {"collection": name, **qdrant_parity(model, documents, queries, forms, asked)}


def read_all(model, args):
    """({name: collection}, the sense collection or None) that the arguments name."""
    collections = {Path(f).name: read(model, f, args.cache) for f in args.beir}
    if not args.senses:
        return collections, None
    folder = Path(args.cache) / "senses"
    if not folder.exists():
        from minicoil.retrieval.sense_collection import make_collection

        make_collection(args.senses, folder)
    return collections, read(model, folder, args.cache)


def asked_words(model, collections):
    """The words with an encoder that queries of the collections ask for."""
    terms = [terms for c in collections for terms in terms_of(c[4], model.vocabulary)]
    return {t for some in terms for t in some if isinstance(t, int)}


def measurements(args, run, model):
    """Yields what is recorded, a part at a time."""
    collections, senses = read_all(model, args)
    wanted = {part for part in PARTS if part not in args.skip}
    needed = asked_words(model, [*collections.values(), *([senses] if senses else [])])
    ways = train_ways(run, needed) if {"collections", "senses"} & wanted else {}
    fitted = {w: ways[w] for w in FITTED if w in ways}
    facts = {"samples": run.params.samples, "objective": run.params.objective}
    yield {"words": len(model.words), "asked": len(needed), **facts}
    if "collections" in wanted:
        yield measured_collections(model, ways, collections)
    if "layers" in wanted and collections:
        yield {"layers": measured_layers(model, collections, args.cache)}
    if "adapted" in wanted and fitted and collections:
        yield {"adapted": measured_adapted(model, fitted, collections, args.cache)}
    if "senses" in wanted and senses:
        folder = Path(args.cache) / "adapted" if "adapted" in wanted else None
        yield {"senses": measured_senses(model, ways, fitted, senses, folder)}
    if "parity" in wanted and collections:
        yield {"parity": measured_parity(model, collections)}
    if "costs" in wanted:
        yield {"costs": index_costs(run, model)}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", required=True)
    parser.add_argument("--beir", action="append", default=[])
    parser.add_argument("--senses", action="append", default=[])
    parser.add_argument("--cache", required=True)
    parser.add_argument("--out", default="results/search.json")
    parser.add_argument("--skip", action="append", default=[], choices=PARTS)
    args = parser.parse_args()
    run = open_run(args.run)
    model = MiniCOIL.load(run.stage("model").path, threads=2)
    out = load_json(args.out)["results"] if Path(args.out).exists() else {}
    for part in measurements(args, run, model):
        out |= part
        save_record(args.out, out)


if __name__ == "__main__":
    main()
