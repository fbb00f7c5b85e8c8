"""Ways to give a word no negative number, for tests/bench/non_negative.py.

Forms of vectors, a turn that goes by cosines, and a training in which the cut takes part.
"""

import numpy as np
import torch

from minicoil.learning.algebra import apply, descend, nearly_linear
from minicoil.learning.fit import fit_rows, real_pairs, unit
from minicoil.learning.joint import agreeing_space, first_mix, joint_goal
from minicoil.learning.objectives import WordGroup
from minicoil.serving.non_negative import closest_non_negative, word_rotation
from minicoil.serving.sparse import unit_rows

SHIFTS = (0.1, 0.2, 0.4)
TURN_STEPS, CUT_STEPS = 80, 60
TRAINED = (
    "cut in training",
    "cut alone in training",
)  # the cut's loss beside the signed one, or in its place


def long(rows):
    """The positive part of rows (n, dim), as long as they were."""
    return unit_rows(closest_non_negative(rows)).astype(np.float32)


def halves_of(rows):
    """The positive and the negative part of rows (n, dim), side by side: (n, 2 dim)."""
    return np.concatenate([np.maximum(rows, 0), np.maximum(-rows, 0)], axis=1)


def shifted(rows, by):
    """Rows (n, dim) moved along the diagonal before they are cut."""
    return long(rows + by * rows.shape[1] ** -0.5)


def cuts(mine, theirs):
    """{name: factors (queries, documents)} of turned rows of queries and of documents, without a sign."""
    cut, whole = [closest_non_negative(y) for y in (mine, theirs)], [long(y) for y in (mine, theirs)]
    found = {
        "non_negative": cut[0] @ cut[1].T,
        "made as long": whole[0] @ whole[1].T,
        "documents made as long": cut[0] @ whole[1].T,
        "two halves": halves_of(mine) @ halves_of(theirs).T,
    }
    return found | {f"shifted by {by}": shifted(mine, by) @ shifted(theirs, by).T for by in SHIFTS}


def cosine_errors(rows):
    """{name: mean squared distance of its products from the cosines} of turned rows of a word."""
    off = ~np.eye(len(rows), dtype=bool)
    return {name: float(((got - rows @ rows.T)[off] ** 2).mean()) for name, got in cuts(rows, rows).items()}


def positive_cosines(y):
    """Cosines (words, n, n) of the positive parts of rows y (words, n, dim)."""
    z = unit(y.clamp(min=0) + 1e-7)
    return z @ z.mT


def turned_by(skew):
    """The orthogonal maps (words, dim, dim) of the skew part of any matrices."""
    half, eye = (skew - skew.mT) / 2, torch.eye(skew.shape[-1])
    return torch.linalg.solve(eye + half, eye - half)


def turn_for_cosines(rows, steps=TURN_STEPS):
    """Maps (words, dim, dim) that keep the cosines of rows [(n, dim)] through the cut, as far as found."""
    dim, most = rows[0].shape[1], max(map(len, rows))
    y = torch.as_tensor(np.stack([np.pad(r, ((0, most - len(r)), (0, 0))) for r in rows]).astype(np.float32))
    start = torch.as_tensor(np.stack([word_rotation(r) for r in rows])).float()
    pairs, goal = real_pairs(y), y @ y.mT

    def loss(p):
        found = positive_cosines(y @ (start @ turned_by(p)))
        return (pairs * (found - goal) ** 2).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)

    skew = descend(loss, torch.zeros(len(rows), dim, dim), steps, high=0.05, low=0.002)
    return (start @ turned_by(skew)).numpy()


def trained_with_cut(samples, dim, pooled):
    """{way of `TRAINED`: encoders (words, hidden_size, dim)}: `joint`, turned, and steps with the cut."""
    group = WordGroup(samples, dim, pooled)
    space = agreeing_space(group)
    goal, pairs = joint_goal(group, space), real_pairs(fit_rows(group.x))
    x, count = space.coordinates, pairs.sum((1, 2)).clamp(min=1)

    def signed(p):
        y = unit(x @ p)
        return (pairs * (y @ y.mT - goal) ** 2).sum((1, 2)) / count

    def cut(p):
        return (pairs * (positive_cosines(x @ p) - goal) ** 2).sum((1, 2)) / count

    start = descend(signed, first_mix(space, dim), 120)
    rows = unit(x @ start).numpy()
    maps = np.stack([word_rotation(r[: len(s.tokens)]) for r, s in zip(rows, samples)])
    start = start @ torch.as_tensor(maps).float()
    losses = dict(zip(TRAINED, (lambda p: signed(p) + cut(p), cut)))
    steps = {way: descend(loss, start, CUT_STEPS, high=0.02).double() for way, loss in losses.items()}
    return {way: nearly_linear(group.x, space.basis @ p).numpy() for way, p in steps.items()}


def word_vectors(samples, encoders):
    """[(n, dim) unit vectors] of samples' own sentences, by encoders in their order."""
    return [apply(sample.tokens, w).astype(np.float32) for sample, w in zip(samples, encoders)]
