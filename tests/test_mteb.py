"""MTEB evaluates the model through sentence-transformers, where MTEB is installed.

It is not a dependency: `pip install mteb`.
"""

import pytest

mteb = pytest.importorskip("mteb", reason="mteb is not installed")

DOCUMENTS = [
    "A bat left its cave at dusk.",
    "He broke his bat at the match.",
    "The bank raised its rates.",
    "Reeds grow on the bank of the river.",
]
QUERIES = {"q0": ("fruit bats in caves", {"0": 1}), "q1": ("river bank reeds", {"3": 1})}


def task():
    """A retrieval task of four documents, made on the spot: MTEB's own come from the hub."""
    from datasets import Dataset
    from mteb.abstasks import AbsTaskRetrieval
    from mteb.abstasks.task_metadata import TaskMetadata

    facts = dict(
        name="Bats",
        description="bats and banks",
        reference=None,
        dataset={"path": "none", "revision": "1"},
        type="Retrieval",
        category="t2t",
        modalities=["text"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        date=("2026-01-01", "2026-01-02"),
        domains=["Web"],
        task_subtypes=[],
        license="cc0-1.0",
        annotations_creators="derived",
        dialect=[],
        sample_creation="created",
        bibtex_citation="",
    )

    class Bats(AbsTaskRetrieval):
        metadata = TaskMetadata(**facts)

        def load_data(self, *_, **__):
            corpus = Dataset.from_list(
                [{"id": str(i), "title": "", "text": text} for i, text in enumerate(DOCUMENTS)]
            )
            queries = Dataset.from_list([{"id": i, "text": text} for i, (text, _) in QUERIES.items()])
            self.dataset = {
                "default": {
                    "test": {
                        "corpus": corpus,
                        "queries": queries,
                        "relevant_docs": {i: found for i, (_, found) in QUERIES.items()},
                        "top_ranked": None,
                    }
                }
            }
            self.data_loaded = True

    return Bats()


def test_a_task_runs(run_folder):
    """A retrieval task runs to its end with MTEB's wrapper around our SparseEncoder, and finds the right
    meaning first."""
    from mteb.models import SparseEncoderWrapper

    from minicoil import load_sparse_encoder

    model = SparseEncoderWrapper(load_sparse_encoder(run_folder / "23_model"))
    scores = (
        mteb.evaluate(model, [task()], cache=None, overwrite_strategy="always")
        .task_results[0]
        .scores["test"][0]
    )
    assert scores["ndcg_at_10"] == 1
