"""The bench that weighs meaning in other ways: its rules, and that no query chooses what scores it."""

import numpy as np
import pytest
from weighing import OWN, Matches, centred, chosen_apart, power_for, sense_idf, sharp

from minicoil.serving.sparse import idf


@pytest.fixture
def match():
    """A word in 4 of 100 documents, asked by two queries."""
    products = np.array([[0.9, 0.8, 0.2, -0.1], [0.5, 0.5, 0.5, 0.5]])
    return Matches([], (), float(idf(4, 100)), products, 100)


def test_the_plain_settings_are_the_own_rule(match):
    """Power 1, level and strength 1, and no share of the sense change nothing."""
    own = match.idf * match.products
    for rule in (sharp(1), centred(1, 1), sense_idf(1, 0)):
        np.testing.assert_allclose(rule(match), own)


def test_a_word_whose_sentences_are_all_alike_counts_as_in_bm25(match):
    """Centred at level 1, equal products leave the IDF alone, whatever the strength."""
    np.testing.assert_allclose(centred(0, 2)(match)[1], match.idf)


def test_a_sense_of_few_documents_is_rarer_than_its_word(match):
    """The first query's products add up to less than the word's four documents."""
    assert (sense_idf(1, 1)(match)[:, 0] > match.idf * match.products[:, 0]).all()


def test_a_power_gives_the_spread_that_is_asked_for():
    """Uniform products to the power p spread by p over the root of 2p + 1."""
    products = np.linspace(0, 1, 20_001)
    assert power_for(products, 1 / np.sqrt(3)) == pytest.approx(1, abs=0.051)
    assert power_for(products, 2 / np.sqrt(5)) == pytest.approx(2, abs=0.051)


def test_no_query_chooses_what_scores_it():
    """A row that is perfect on one half only is chosen there and paid for on the other."""
    queries = [f"q{i}" for i in range(8)]
    even = {q: float(i % 2 == 0) for i, q in enumerate(queries)}
    odd = {q: 1 - value for q, value in even.items()}
    found = {"c": {OWN: dict.fromkeys(queries, 0.5), "even": even, "odd": odd}}
    chosen, kept = chosen_apart(found, [OWN, "even", "odd"])
    assert chosen == ["even", "odd"]
    assert kept["c"] == dict.fromkeys(queries, 0.0)
