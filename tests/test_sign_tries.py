"""The bench of vectors without a sign: what its ways keep of signed products."""

import numpy as np
import pytest
from sign_tries import cosine_errors, cuts, halves_of, turn_for_cosines

from minicoil.serving.sparse import unit_rows


@pytest.fixture
def rows():
    """Unit vectors of a word, which lie around a direction that is far from the diagonal."""
    rng = np.random.default_rng(0)
    return unit_rows(np.array([1.0, 0.2, -0.4]) + rng.normal(0, 0.6, (40, 3))).astype(np.float32)


def test_no_way_changes_what_has_no_sign():
    """Vectors that are positive already keep their products, but where they are shifted."""
    positive = unit_rows(np.random.default_rng(1).random((6, 4)) + 0.1)
    for name, products in cuts(positive, positive).items():
        assert name.startswith("shifted") or np.allclose(products, positive @ positive.T, atol=1e-6)


def test_two_halves_count_unlike_signs_as_nothing():
    """Like signs count as before, and nothing is negative."""
    mine, theirs = np.array([[0.6, -0.8]]), np.array([[0.8, -0.6], [-0.8, 0.6]])
    assert halves_of(mine).tolist() == [[0.6, 0, 0, 0.8]]
    assert np.allclose(halves_of(mine) @ halves_of(theirs).T, [[0.96, 0]])


def test_no_product_is_negative(rows):
    """Whatever the way, and though the signed products are."""
    assert (rows @ rows.T).min() < 0
    assert all((products >= 0).all() for products in cuts(rows, rows).values())


def test_a_turn_by_cosines_keeps_angles(rows):
    """It is orthogonal for each word, and unlike no turn it leaves little for the cut."""
    maps = turn_for_cosines([rows, rows[:20]])
    for turn in maps:
        assert np.allclose(turn @ turn.T, np.eye(3), atol=1e-4)
    assert cosine_errors(rows @ maps[0])["made as long"] < cosine_errors(rows)["made as long"]
