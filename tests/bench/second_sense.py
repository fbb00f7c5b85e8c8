"""When is there a second sense? Clusters of stage 20 against one cluster and chance, on labelled words.

    python tests/bench/second_sense.py --run outputs/demo --data coarsewsd10.jsonl.gz

The bundled sentences are always measured. A word's sentences are drawn at their natural frequencies, the
labels hidden. Measures: B-cubed F (Amigo et al. 2009) and V-measure (Rosenberg and Hirschberg 2007), the
mean over words, and paired by word the difference to one cluster with its 95 % interval. The rule is the
largest share of the edges by chance that two senses may have between them (`APART` in 20_clusters): it is
chosen on half of the words, by B-cubed F, and reported on the other half. The words are in the order of
their hash, so the halves are fixed. `over_in_force`: the chosen rule less the one in force, on the other
half, and on the words of a run of the bundled sentences as its stage 20 has their embeddings. `sure`: of the
splits with so few edges between their closest parts, how many the labels prefer to one cluster, by B-cubed F.
"""

import argparse
import collections
import hashlib
import random
import sys
from pathlib import Path

import numpy as np
from record import save_record

from minicoil.retrieval.retrieval import bootstrap
from minicoil.runs.files import one_thread, progress
from minicoil.runs.run import open_run
from minicoil.stages import clusters as C
from minicoil.stages.senses import word_targets
from minicoil.stages.sentences import sentence_texts
from minicoil.stages.store import drawn_sentences
from minicoil.stages.targets import word_contexts, word_embeddings
from minicoil.text.pieces import WordPieces
from minicoil.text.readers import DATA, read_senses
from minicoil.text.transformer import encode, load_transformer
from minicoil.text.vocabulary import make_vocabulary, positions

RULES = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7)
LEAST = 20  # sentences of a word that has clusters at all
BANDS = (0.3, 0.5)


def key_of(*parts):
    """A number for texts that is the same on every machine."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def drawn_rows(data, most, words):
    """{word: its rows, at most so many} of a sense file, of at most so many words, drawn by hash."""
    found = collections.defaultdict(dict)
    for row in read_senses(data):
        if row["word"]:
            found[row["word"]][row["sentence"]] = row
    kept = sorted((w for w in found if len(found[w]) >= LEAST), key=key_of)[:words]
    return {
        word: sorted(found[word].values(), key=lambda row: key_of(word, row["sentence"]))[:most]
        for word in kept
    }


def encoded(data, rows, cache):
    """{word: (targets (n, 2 h), labels (n,))} of drawn rows; kept in the folder `cache`."""
    name = f"second-{Path(data).name.split('.')[0]}-{key_of(repr(sorted(rows.items())))[:16]}.npz"
    kept = Path(cache) / name
    if kept.exists():
        with np.load(kept) as arrays:
            there = [word for word in rows if f"x {word}" in arrays]
            pairs = {word: (arrays[f"x {word}"], arrays[f"y {word}"]) for word in there}
        return {word: (x.astype(np.float32), y) for word, (x, y) in pairs.items()}
    model, vocabulary = load_transformer("all-MiniLM-L6-v2"), make_vocabulary({word: [] for word in rows})
    pieces = WordPieces(model.tokenizer)
    asked = [(word, row) for word, some in rows.items() for row in some]
    ids = model.tokenize([row["sentence"] for _, row in asked])
    parts = collections.defaultdict(list)
    for batch, _, means, lasts in progress(encode(model, ids, last=True), Path(data).name):
        for i, mean, last in zip(batch, means, lasts):
            word, row = asked[i]
            at = positions(ids[i], pieces, vocabulary).get(vocabulary.ids[word])
            if at:
                both = word_contexts(last, [at])[0], word_embeddings(mean, [at])[0]
                parts[word].append((i, *both, row["sense"]))
    found = {}
    for word, some in parts.items():
        some.sort(key=lambda part: part[0])
        contexts, tokens = np.stack([part[1] for part in some]), np.stack([part[2] for part in some])
        found[word] = C.sense_targets(contexts, tokens), np.array([part[3] for part in some])
    kept.parent.mkdir(parents=True, exist_ok=True)
    arrays = {f"x {word}": x.astype(np.float16) for word, (x, _) in found.items()}
    np.savez(kept, **arrays, **{f"y {word}": y for word, (_, y) in found.items()})
    return found


def b_cubed(clusters, labels):
    """B-cubed F of clusters (n,) against labels (n,)."""
    same_cluster, same_label = clusters[:, None] == clusters, labels[:, None] == labels
    both = (same_cluster & same_label).sum(1)
    precision, recall = (both / same_cluster.sum(1)).mean(), (both / same_label.sum(1)).mean()
    return float(2 * precision * recall / (precision + recall))


def v_measure(clusters, labels):
    """V-measure of clusters (n,) against labels (n,)."""
    from sklearn.metrics import v_measure_score

    return float(v_measure_score(labels, clusters))


def communities(near, edges, seed=0):
    """Leiden's communities (n,) before any are merged, as `find_clusters` has them."""
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    graph = igraph.Graph(n=len(near), edges=edges.pairs.tolist())
    found = graph.community_leiden(
        objective_function="modularity",
        resolution=C.RESOLUTION,
        weights=edges.weights.tolist(),
        n_iterations=-1,
    )
    return np.array(found.membership)


def clusterings(targets):
    """{rule: clusters (n,)} of a word, and how close the parts of each are in the graph that a run keeps."""
    distances = C.cosine_distances(targets)
    near = C.nearest(distances, C.cluster_neighbours(len(targets)))
    edges = C.edges_of(near)
    start = communities(near, edges)
    found = {rule: C.by_size(C.merge_touching(start.copy(), edges, rule)) for rule in RULES}
    kept = C.edges_of(C.nearest(distances))
    return found, {rule: float(C.closeness(clusters, kept).max()) for rule, clusters in found.items()}


def word_row(word, targets, labels):
    """What is measured of a word: {system: {bcubed, v}}, {rule: closeness} and the numbers of both."""
    found, close = clusterings(targets)
    systems = {f"apart {rule}": clusters for rule, clusters in found.items()}
    systems["one cluster"] = np.zeros(len(labels), int)
    rng = np.random.default_rng(int(key_of(word)[:8], 16))
    systems["random"] = rng.permutation(found[C.APART])
    scores = {
        name: {"bcubed": b_cubed(clusters, labels), "v": v_measure(clusters, labels)}
        for name, clusters in systems.items()
    }
    return {
        "sentences": len(labels),
        "labels": len(set(labels.tolist())),
        "clusters": {rule: int(clusters.max()) + 1 for rule, clusters in found.items()},
        "close": close,
        "scores": scores,
    }


def table(rows):
    """{system: {bcubed, v, and both `over_one`: [mean, low, high]}} over the rows of words."""
    found = {}
    for name in rows[0]["scores"]:
        mine = {m: np.array([row["scores"][name][m] for row in rows]) for m in ("bcubed", "v")}
        one = {m: np.array([row["scores"]["one cluster"][m] for row in rows]) for m in mine}
        found[name] = {m: float(values.mean()) for m, values in mine.items()} | {
            "over_one": {m: [float((v - one[m]).mean()), *bootstrap(v - one[m])] for m, v in mine.items()}
        }
    return found


def sureness(rows, rule):
    """[{upto, splits, right}] of the splits under a rule, by how close their closest parts are."""
    found, low = [], -1.0
    for high in BANDS:
        some = [row for row in rows if row["clusters"][rule] > 1 and low < row["close"][rule] <= high]
        name = f"apart {rule}"
        right = [row["scores"][name]["bcubed"] > row["scores"]["one cluster"]["bcubed"] for row in some]
        found.append({"upto": high, "splits": len(some), "right": sum(right)})
        low = high
    return found


def halves(rows):
    """Two halves of {word: row}, by the words' hash."""
    order = sorted(rows, key=lambda word: key_of("half", word))
    return [rows[word] for word in order[::2]], [rows[word] for word in order[1::2]]


def run_rows(run):
    """{word: row} of a run of the bundled sentences, of its words with labels, from its own embeddings."""
    labels = {(row["word"], row["sentence"]): row["sense"] for row in read_senses(DATA / "sentences.jsonl")}
    found = {}
    for number, (word, _, ids) in enumerate(drawn_sentences(run)):
        texts, targets = sentence_texts(run, ids), next(word_targets(run, [(number, ids)]))
        mine = np.array([labels.get((word, texts[i]), "") for i in ids.tolist()])
        if (mine != "").sum() >= LEAST:
            found[word] = word_row(word, targets[mine != ""], mine[mine != ""])
    return found


def over_in_force(rows, chosen):
    """[mean, low, high] of B-cubed F under the chosen rule less the one in force, paired by word."""
    both = [[row["scores"][f"apart {rule}"]["bcubed"] for row in rows] for rule in (chosen, C.APART)]
    apart = np.subtract(*both)
    return [float(apart.mean()), *bootstrap(apart)]


def bench(files, run):
    """The tables of {file: {word: row}}: each file's, and the rule chosen on half of all words."""
    every = {f"{file} {word}": row for file, rows in files.items() for word, row in rows.items()}
    first, second = halves(every)
    chosen = max(RULES, key=lambda rule: (table(first)[f"apart {rule}"]["bcubed"], -rule))
    chain = run_rows(run)
    fewer = [word for word, row in chain.items() if row["clusters"][chosen] < row["clusters"][C.APART]]
    today = {file: table(list(rows.values())) for file, rows in files.items()}
    return {
        "words": {file: len(rows) for file, rows in files.items()},
        "files": today,
        "chosen_on_half": chosen,
        "first_half": {"words": len(first), "systems": table(first)},
        "second_half": {"words": len(second), "systems": table(second)},
        "in_force": C.APART,
        "over_in_force": {"second_half": over_in_force(second, chosen),
                          "run": over_in_force(list(chain.values()), chosen)},
        "run": {"words": len(chain), "merged_by_chosen": fewer, "systems": table(list(chain.values()))},
        "sure": sureness(list(every.values()), C.APART),
    }


def main():
    """Measure, print the second half, and write the record."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--run", default="outputs/demo", help="a finished run of the bundled sentences")
    parser.add_argument("--cache", default="outputs/cache")
    parser.add_argument("--most", type=int, default=150, help="sentences a word")
    parser.add_argument("--words", type=int, default=60, help="words a file")
    parser.add_argument("--out", default="results/second_sense.json")
    args = parser.parse_args()
    one_thread()
    files = {}
    for data in [DATA / "sentences.jsonl", *args.data]:
        name = "bundled" if data == DATA / "sentences.jsonl" else Path(data).name.split(".")[0]
        words = encoded(data, drawn_rows(data, args.most, args.words), args.cache)
        files[name] = {word: word_row(word, *pair) for word, pair in words.items() if len(pair[1]) >= LEAST}
        print(name, len(files[name]), file=sys.stderr)
    results = bench(files, open_run(args.run))
    for name, found in results["second_half"]["systems"].items():
        over = ", ".join(f"{100 * v:+.1f}" for v in found["over_one"]["bcubed"])
        print(f"{name:12} B-cubed {100 * found['bcubed']:.1f}  V {100 * found['v']:.1f}  over one: {over}")
    print("chosen:", results["chosen_on_half"], results["sure"], results["over_in_force"])
    of_run = results["run"]["systems"].items()
    print("run:", {name: round(100 * found["bcubed"], 1) for name, found in of_run})
    print("one sense less by the chosen rule:", results["run"]["merged_by_chosen"])
    save_record(args.out, results)


if __name__ == "__main__":
    main()
