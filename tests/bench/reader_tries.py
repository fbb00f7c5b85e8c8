"""Ways to give a large reader better numbers from few sentences; tests/bench/readers.py measures them.

`learn_together` learns one map for all words, from all their sentences, within the directions in which
token embeddings vary around the mean of their word; each word then moves away from it as far as its own
sentences pay for.
"""

from typing import NamedTuple

import numpy as np
import torch

from minicoil.learning.algebra import apply, descend, nearly_linear, real_rows
from minicoil.retrieval.retrieval import term_vectors
from minicoil.serving.sparse import unit_rows

SPACE = 64             # directions that all words share
CONSTANT_RIDGE = 0.05  # of the pooled covariance's mean variance, for the direction of a word's constant
ROWS = 64              # at most so many rows of a word are learned from
SHARED_STEPS, OWN_STEPS = 200, 80
POWERS = (2, 3)        # the cosine that numbers come close to, to this power
OWN = {"one map": None, "own, bound": 3e-3, "own, loose": 3e-4}   # the price of a square away from the map
HELD = 0.3             # share of a word's sentences that is kept aside to compare maps without labels


class Together(NamedTuple):
    """Rows of words of unit length, their shared directions, and what serving needs to do the same."""

    x: torch.Tensor             # (words, rows, h) float32; padding is 0
    coordinates: torch.Tensor   # (words, rows, 1 + SPACE) float32: a constant, and the rows around their mean
    basis: torch.Tensor         # (words, h, 1 + SPACE) float64: coordinates = x basis


def padded(rows):
    """Arrays (n, h) as one tensor (words, most rows, h) of unit rows, at most `ROWS` each, spread evenly."""
    few = [some[np.unique(np.linspace(0, len(some) - 1, ROWS).astype(int))] for some in rows]
    out = np.zeros((len(few), max(map(len, few)), few[0].shape[1]), np.float32)
    for i, some in enumerate(few):
        out[i, : len(some)] = unit_rows(some.astype(np.float32))
    return torch.from_numpy(out)


def shared_space(x):
    """The `Together` of rows x (words, n, h)."""
    real = real_rows(x)
    mean = x.sum(1) / real.sum(1, keepdim=True)
    around = ((x - mean[:, None]) * real[..., None]).flatten(0, 1).double()
    pooled = around.mT @ around / (real.sum(1) - 1).clamp(min=0).sum()
    values, vectors = torch.linalg.eigh(pooled)
    main = vectors[:, -SPACE:].flip(1) / values[-SPACE:].sum().sqrt()
    ridge = CONSTANT_RIDGE * pooled.diagonal().mean() * torch.eye(len(pooled), dtype=torch.float64)
    solved = torch.linalg.solve(pooled + ridge, mean.double().mT).mT
    constant = solved / (solved * mean).sum(1, keepdim=True)
    centred = main - constant[..., None] * (mean.double() @ main)[:, None]
    basis = torch.cat([constant[..., None], centred], 2)
    return Together(x, (x.double() @ basis).float(), basis)


def losses(space, power):
    """A function from P (words or 1, 1 + SPACE, dim) to each word's mean squared error of its cosines."""
    goal, real = (space.x @ space.x.mT).clamp(min=0) ** power, real_rows(space.x)
    pairs = real[:, :, None] * real[:, None] * (1 - torch.eye(space.x.shape[1]))

    def loss(p):
        y = torch.nn.functional.normalize(space.coordinates @ p, dim=2)
        return (pairs * (y @ y.mT - goal) ** 2).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)

    return loss


def shared_map(loss, dim):
    """P (1, 1 + SPACE, dim): one map for all words."""
    start = torch.zeros(1, 1 + SPACE, dim)
    start[0, 0, 0] = 0.7
    start[0, 1:dim, 1:] = torch.eye(dim - 1)
    return descend(lambda p: loss(p).mean()[None], start, SHARED_STEPS)


def own_maps(loss, shared, words, price):
    """P (words, 1 + SPACE, dim): the shared map, and what each word pays for to differ from it."""
    start = shared.repeat(words, 1, 1)
    if price is None:
        return start
    return descend(lambda p: loss(p) + price * ((p - shared) ** 2).sum((1, 2)), start, OWN_STEPS)


def learn_together(rows, dim, power, prices):
    """{name: encoders (words, h, dim) float32} of arrays (n, h), for prices {name: price}."""
    space = shared_space(padded(rows))
    loss = losses(space, power)
    shared, found = shared_map(loss, dim), {}
    for name, price in prices.items():
        maps = own_maps(loss, shared, len(rows), price)
        found[name] = nearly_linear(space.x, space.basis @ maps.double()).numpy()
    return found


def held_out_errors(rows, dim, power, prices):
    """{name: root mean squared error of cosines} of sentences kept aside, which no map was learned from."""
    kept = [max(2, round(HELD * len(some))) for some in rows]
    enough = [(some[n:], some[:n]) for some, n in zip(rows, kept) if len(some) - n >= 2]
    learned = learn_together([a for a, _ in enough], dim, power, prices)
    return {name: cosine_error([b for _, b in enough], w, power) for name, w in learned.items()}


def cosine_error(rows, encoders, power):
    """Root mean squared error of encoders' cosines, against those of whole rows to a power."""
    errors = []
    for some, w in zip(rows, encoders):
        whole, few = unit_rows(some.astype(np.float32)), apply(some.astype(np.float32), w)
        above = np.triu_indices(len(some), 1)
        errors.append(np.mean(((few @ few.T) - np.maximum(whole @ whole.T, 0) ** power)[above] ** 2))
    return float(np.sqrt(np.mean(errors)))


def document_rows(index, terms):
    """{term: token embeddings (n, h)} of terms in the documents that have them, of terms with two or more."""
    having = {t: [p.rows for p in index.postings[t]] for t in sorted(terms, key=str) if t in index.postings}
    return {term: term_vectors(index.forms, rows) for term, rows in having.items() if len(rows) > 1}


def factors_of(ways):
    """What `score_all` asks for a term's factors: of ways {row: {term: encoder}}, and of whole vectors."""

    def of_term(model, index, term, mine, rng, more):
        full = term_vectors(index.forms, [p.rows for p in index.postings[term]])
        cosine = np.maximum(unit_rows(mine) @ unit_rows(full).T, 0)
        known = {f"whole, cosine^{power}, words with numbers": cosine**power for power in POWERS}
        found = {row: apply(mine, w[term]) @ apply(full, w[term]).T for row, w in ways.items() if term in w}
        return found | (known if isinstance(term, int) else {})

    return of_term
