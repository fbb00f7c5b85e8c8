"""What the benches of the English model count: a notebook's time, sentences to encode, operations."""

import numpy as np
from cover_curve import COUNTS, covers
from int8_targets import shared
from model_en import Net, numpy_products, product_graph, runtime_session, stage_parts

from minicoil.stages.draw import Draw, save_draw


def cell(source, begin, end):
    """An executed cell that began and ended at seconds after noon."""
    times = {"start_time": f"2026-11-28T12:00:{begin:02d}", "end_time": f"2026-11-28T12:00:{end:02d}"}
    return {"source": source.splitlines(keepends=True), "metadata": {"papermill": times}}


def test_parts_of_a_stage_add_up_to_its_time():
    """Start, imports, the first call of the stage's function, and all the rest with the kernel's end."""
    cells = [
        cell("#| export\nimport numpy", 3, 5),
        cell("work(run)", 5, 15),
        cell("assert work(run)", 15, 16),
        {"source": ["never run"], "metadata": {}},
    ]
    told = {"start_time": "2026-11-28T12:00:00", "end_time": "2026-11-28T12:00:20"}
    notebook = {"cells": cells, "metadata": {"papermill": told}}
    assert stage_parts(notebook, "work") == {"start": 3, "import": 2, "work": 10, "rest": 5}


def test_a_smaller_draw_encodes_the_first_sentences_of_each_word(tmp_path):
    """Two words that share their first five sentences: the cover counts each sentence once."""
    keys = np.linspace(0, 1, COUNTS[-1])
    first, second = np.arange(COUNTS[-1]), np.r_[np.arange(5), 100 + np.arange(COUNTS[-1] - 5)]
    save_draw(tmp_path / "drawn.parquet", [Draw(first, keys), Draw(second, keys)])
    assert covers(tmp_path) == {str(count): 2 * count - 5 for count in COUNTS}


def test_operations_are_those_of_the_products():
    """Two layers of width 4, one text of 3 tokens, by hand."""
    weights = 3 * (4 * 4 * 4 + 4 * 8 + 8 * 4)
    attention = 2 * 3 * 3 * 4
    assert Net(layers=2, heads=2, hidden=4, inner=8).operations(1, 3) == 2 * 2 * (weights + attention)


def test_onnx_runtime_multiplies_the_same_matrices():
    """The graph of products has the result that numpy has."""
    rng = np.random.default_rng(0)
    shapes = ((6, 4), (2, 3, 2), (2, 2, 3), (2, 3, 2))
    x, q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in shapes)
    weights = [[rng.normal(size=(4, 4)).astype(np.float32)] for _ in range(2)]
    products = runtime_session(product_graph(weights)).run(None, {"x": x, "q": q, "k": k, "v": v})
    expected = (x @ weights[0][0] @ weights[1][0], ((q @ k) @ v @ k) @ v)
    for got, wanted in zip(products, expected):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4)
    numpy_products(weights, [(x, q, k, v)])


def test_shared_neighbours():
    """A row that shares one of its two neighbours, and one that shares both, in another order."""
    assert shared(np.array([[1, 2], [3, 4]]), np.array([[1, 5], [4, 3]])) == 0.75
