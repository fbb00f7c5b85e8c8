"""The rules of the bundled data: minicoil/data/sentences.jsonl and minicoil/data/beir."""

import json
import os
import re
from collections import Counter, defaultdict
from unittest import mock

import numpy as np
import pytest

from minicoil.stages.sentences import DEMO_WORDS
from minicoil.text.readers import DATA
from minicoil.text.vocabulary import stemmer, stop_words

IRREGULAR = {"mice": "mouse", "sprang": "spring", "sprung": "spring", "drew": "draw", "drawn": "draw"}
WORDS = (
    "bat",
    "bank",
    "bass",
    "spring",
    "cell",
    "pitch",
    "seal",
    "crane",
    "mouse",
    "current",
    "club",
    "vector",
    "oxygen",
    "arm",
    "organ",
    "palm",
    "draw",
    "ball",
    "jam",
    "plant",
    "match",
    "court",
    "trunk",
    "port",
)
STEMS = {stemmer().stem_word(word): word for word in WORDS}


def json_lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pieces(text):
    """Runs of letters and digits, lower-cased: the parts of "club's" and "two-for-one" stand alone."""
    return re.findall(r"[^\W_]+", text.lower())


def word_of(form):
    """The one of the bundle's words that `form` is a form of, or None."""
    return IRREGULAR.get(form) or STEMS.get(stemmer().stem_word(form))


ROWS = json_lines(DATA / "sentences.jsonl")
LABELLED = [row for row in ROWS if row["word"]]
PLAIN = [row for row in ROWS if not row["word"]]
SENTENCES = list(dict.fromkeys(row["sentence"] for row in ROWS))
SENSES = defaultdict(list)
for row in LABELLED:
    SENSES[row["word"], row["sense"]].append(row)
each_sense = pytest.mark.parametrize("members", SENSES.values(), ids=map(".".join, SENSES))


def test_words():
    """There are 24 words, the ones that a run trains when none are named."""
    assert {word for word, _ in SENSES} == set(WORDS) == {word.split("/")[0] for word in DEMO_WORDS}


def test_irregular_forms():
    """Every irregular form in the bundle is one that a run adds to its word."""
    added = {form: word.split("/")[0] for word in DEMO_WORDS for form in word.split("/")[1:]}
    assert added == IRREGULAR


@pytest.mark.parametrize("word", WORDS)
def test_senses(word):
    """Every word has two or three senses, and one word, which the notebooks hold beside them, has one."""
    assert len([sense for w, sense in SENSES if w == word]) in ((1,) if word == "oxygen" else (2, 3))


@each_sense
def test_sentences_of_a_sense(members):
    """Every sense has at least 40 different sentences."""
    assert len({row["sentence"] for row in members}) >= 40


def test_sentences_with_none():
    """At least 400 sentences have none of the words, and no label."""
    assert len({row["sentence"] for row in PLAIN}) >= 400
    assert all(row[key] is None for row in PLAIN for key in ("sense", "start", "end"))


def test_length():
    """Every sentence has 6 to 35 words."""
    assert [s for s in SENTENCES if not 6 <= len(s.split()) <= 35] == []


def test_start_and_end():
    """Start and end cut a whole word out of the sentence, a form of the row's word."""
    for row in LABELLED:
        before, form, after = (
            row["sentence"][a:b]
            for a, b in ((0, row["start"]), (row["start"], row["end"]), (row["end"], None))
        )
        assert word_of(form.lower()) == row["word"], row
        assert not re.search(r"\w$", before), row
        assert not re.match(r"\w", after), row


def test_every_word_is_labelled():
    """A sentence has a row for each of the words in it, and for no other."""
    labels = defaultdict(list)
    for row in ROWS:
        labels[row["sentence"]].append(row["word"])
    for sentence, words in labels.items():
        assert sorted(filter(None, words)) == sorted({word_of(p) for p in pieces(sentence)} - {None}), (
            sentence
        )
        assert len(words) == 1 or None not in words, sentence


def test_runs_of_five_words():
    """No run of five words stands in more than three sentences: no templates."""
    found = defaultdict(set)
    for sentence in SENTENCES:
        words = pieces(sentence)
        for i in range(len(words) - 4):
            found[" ".join(words[i : i + 5])].add(sentence)
    assert [run for run, where in found.items() if len(where) > 3] == []


@each_sense
def test_openings(members):
    """Within a sense no two opening words are shared by more than four sentences."""
    openings = Counter(tuple(pieces(row["sentence"])[:2]) for row in members)
    assert openings.most_common(1)[0][1] <= 4, openings.most_common(1)


def content_words(sentence, word):
    """Stems of a sentence's words that are no stop words and no forms of `word`."""
    return {
        stemmer().stem_word(p)
        for p in pieces(sentence)
        if p.isalpha() and len(p) > 1 and p not in stop_words() and word_of(p) != word
    }


def share_free(members, n=10):
    """Share of sentences without the `n` commonest content words.

    Ties broken by name, and ties broken so that each next word spoils most sentences.
    """
    found = [content_words(row["sentence"], row["word"]) for row in members]
    counts = Counter(stem for words in found for stem in words)
    ranked = sorted(counts, key=lambda stem: (-counts[stem], stem))

    def free(common):
        return sum(not words & common for words in found) / len(found)

    last = counts[ranked[n - 1]]
    worst = {stem for stem in ranked if counts[stem] > last}
    while len(worst) < n:
        worst.add(
            min(
                (stem for stem in ranked if counts[stem] == last and stem not in worst),
                key=lambda stem: free(worst | {stem}),
            )
        )
    return free(set(ranked[:n])), free(worst)


def test_share_free():
    """The measure itself: three sentences, two commonest words, three words tied for the second place."""
    rows = [
        {"word": "bat", "sentence": s}
        for s in ("The bats hunt moths.", "Hunt for a bat.", "My bat is ash; willow bats cost more.")
    ]
    assert share_free(rows, n=1) == pytest.approx((1 / 3, 1 / 3))
    assert share_free(rows, n=2) == pytest.approx((0, 0))


@each_sense
def test_commonest_content_words(members):
    """At least 40 % of a sense's sentences have none of its ten commonest content words, even when ties are
    broken for the worst."""
    fixed, worst = share_free(members)
    assert fixed >= 0.4
    assert worst >= 0.4


def test_two_words_in_a_sentence():
    """Several sentences have two of the words, and so two rows in one split; every word is in some."""
    both = defaultdict(list)
    for row in LABELLED:
        both[row["sentence"]].append(row)
    both = [rows for rows in both.values() if len(rows) == 2]
    assert len(both) >= 20
    assert {row["word"] for rows in both for row in rows} == set(WORDS)
    assert all(a["word"] != b["word"] and a["split"] == b["split"] for a, b in both)


@each_sense
def test_splits_of_a_sense(members):
    """Every sense has both splits; about a third of its sentences is for the test."""
    splits = Counter(row["split"] for row in members)
    assert set(splits) == {"train", "test"}
    assert 0.25 <= splits["test"] / len(members) <= 0.4


def test_no_sentence_in_both_splits():
    """A sentence is never in both splits, not even with other capitals or punctuation."""
    splits = defaultdict(set)
    for row in ROWS:
        splits[" ".join(pieces(row["sentence"]))].add(row["split"])
    assert len(splits) == len(SENTENCES)
    assert {frozenset(found) for found in splits.values()} == {frozenset({"train"}), frozenset({"test"})}


def test_collection():
    """The collection holds every sentence once and nothing else."""
    corpus = json_lines(DATA / "beir" / "corpus.jsonl")
    assert Counter(row["text"] for row in corpus) == Counter(SENTENCES)
    assert len({row["_id"] for row in corpus}) == len(corpus)


def test_queries():
    """There are 150 different queries, each with grades 1 and 2 only, at least two sentences of grade 2, and
    all ids exist."""
    queries = json_lines(DATA / "beir" / "queries.jsonl")
    assert (
        len({row["_id"] for row in queries})
        == len({row["text"].strip().lower() for row in queries} - {""})
        == len(queries)
        == 150
    )
    header, *lines = (DATA / "beir" / "qrels" / "test.tsv").read_text(encoding="utf-8").splitlines()
    assert header.split("\t") == ["query-id", "corpus-id", "score"]
    judged = [line.split("\t") for line in lines]
    assert len({(query, document) for query, document, _ in judged}) == len(judged)
    assert {document for _, document, _ in judged} <= {
        row["_id"] for row in json_lines(DATA / "beir" / "corpus.jsonl")
    }
    assert {grade for *_, grade in judged} == {"1", "2"}
    best = Counter(query for query, _, grade in judged if grade == "2")
    assert {query for query, *_ in judged} == set(best) == {row["_id"] for row in queries}
    assert min(best.values()) >= 2


def test_readme():
    """The README beside the data counts right."""
    readme = " ".join((DATA / "README.md").read_text(encoding="utf-8").split())
    assert "Twenty-four words" in readme
    assert re.search(r"(\d+) senses", readme)[1] == str(len(SENSES))
    assert re.search(r"(\d+) sentences with none", readme)[1] == str(len({row["sentence"] for row in PLAIN}))
    assert re.search(r"(\d+) short queries", readme)[1] == "150"


def embed_words(model, rows):
    """(n, hidden_size): the full token embedding of each labelled row's word."""
    from minicoil.stages.targets import word_embeddings
    from minicoil.text.pieces import WordPieces
    from minicoil.text.transformer import encode
    from minicoil.text.vocabulary import make_vocabulary, positions

    vocabulary = make_vocabulary(
        {word: [word, *(form for form, w in IRREGULAR.items() if w == word)] for word in WORDS}
    )
    wanted = defaultdict(list)
    for i, row in enumerate(rows):
        wanted[row["sentence"]].append(i)
    ids, mine = model.tokenize(wanted), list(wanted.values())
    found, pieces_of = np.zeros((len(rows), model.hidden_size), np.float32), WordPieces(model.tokenizer)
    for batch, _, tokens in encode(model, ids):
        for i, t in zip(batch, tokens):
            places = positions(ids[i], pieces_of, vocabulary)
            found[mine[i]] = word_embeddings(
                t, [places[vocabulary.ids[rows[r]["word"]]] for r in mine[i]]
            )
    return found


def accuracy(classifier, x, rows):
    """Share of test rows whose sense is found by a classifier fitted on the train rows."""
    train = np.array([row["split"] == "train" for row in rows])
    sense = np.array([row["sense"] for row in rows])
    return classifier.fit(x[train], sense[train]).score(x[~train], sense[~train])


def test_bag_of_words_is_not_enough(capsys):
    """Neighbouring words alone tell the senses apart less well than the full token embedding does.

    Tried on every second word, as a transformer takes half a minute for the sentences of all.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    from minicoil.text.transformer import load_transformer

    words = [word for word in WORDS if word != "oxygen"][::2]
    some = [row for row in LABELLED if row["word"] in words]
    with mock.patch.dict(
        os.environ
    ):  # loading sets numbers of threads, which later processes must not inherit
        embeddings = embed_words(load_transformer("all-MiniLM-L6-v2"), some)
    scores = {}
    for word in words:
        mine = [i for i, row in enumerate(some) if row["word"] == word]
        rows, sentences = [some[i] for i in mine], np.array([some[i]["sentence"] for i in mine])
        scores[word] = (
            accuracy(make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)), sentences, rows),
            accuracy(LogisticRegression(max_iter=1000), embeddings[mine], rows),
        )
    bag, token = np.mean(list(scores.values()), axis=0)
    with capsys.disabled():
        print("\nsenses of held-back sentences, logistic regression:", end=" ")
        print(f"bag of words {bag:.3f}, full token embedding {token:.3f}")
        print("  ".join(f"{word} {a:.2f} {b:.2f}" for word, (a, b) in scores.items()))
    assert bag < token


def test_queries_of_two_words():
    """Three queries for each sense of a word with several; one of their two words is a form of it."""
    rows = json_lines(DATA / "two_words.jsonl")
    senses = {(row["word"], row["sense"]) for row in ROWS if row["word"]}
    several = {pair for pair in senses if sum(word == pair[0] for word, _ in senses) > 1}
    assert all(set(row) == {"query", "word", "sense"} for row in rows)
    assert Counter((row["word"], row["sense"]) for row in rows) == dict.fromkeys(several, 3)
    assert len({row["query"] for row in rows}) == len(rows)
    for row in rows:
        words = row["query"].split()
        assert len(words) == 2
        assert sum(word.startswith(row["word"]) for word in words) == 1
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert re.search(r"(\d+) queries of two words", readme)[1] == str(len(rows))
