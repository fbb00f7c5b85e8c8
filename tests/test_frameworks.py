"""The how-to pages of frameworks: each runs with the real package, and finds what exact scoring finds.

The tests execute the code of the pages and go on with what it has defined, so what is tested is what stands
there. Without the packages they are skipped: `pip install minicoil[frameworks]`.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from ranked import exact_scores

from minicoil import MiniCOIL

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
HOWTO = Path(__file__).resolve().parents[1] / "docs" / "howto"
NEEDS = {
    "langchain": "langchain_qdrant",
    "llamaindex": "llama_index.vector_stores.qdrant",
    "haystack": "haystack_integrations.document_stores.qdrant",
    "sentence-transformers": "sentence_transformers",
    "mteb": "mteb",
}
QUESTIONS = [
    "which bats fly by night?",
    "the bank of a river",
    "bark, bark, a dog's bark",
    "a seal",
    "zzyzx",
    "the of",
]
AWKWARD = [
    "",
    "the of",
    "757 4904",
    "zzyzx",
    "a bat " * 300,
    "the last words are far: " + "and " * 400 + "seal",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page():
    """A function that executes the code of a page, once, and gives the names that it has defined."""
    nbformat, done = pytest.importorskip("nbformat"), {}

    def run(name):
        pytest.importorskip(NEEDS[name], reason="pip install minicoil[frameworks]")
        if name not in done:
            cells, names = nbformat.read(HOWTO / f"{name}.ipynb", 4).cells, {"__name__": "__main__"}
            for cell in cells:
                if cell.cell_type == "code":
                    exec(compile(cell.source, f"{name}.ipynb", "exec"), names)
            done[name] = names
        return done[name]

    return run


def finds_what_is_there(texts, ask):
    """Assert that `ask(question)`, which gives (text, score) by sparse vectors alone, scores exactly."""
    model = MiniCOIL.load(avg_len=6)
    for question, exact in zip(QUESTIONS, exact_scores(model, texts, QUESTIONS)):
        found = [(text, score) for text, score in ask(question) if abs(score) > 1e-6]
        expected = {text: score for text, score in zip(texts, exact) if np.isfinite(score)}
        assert dict(found) == pytest.approx(expected, abs=1e-4)
        assert [score for _, score in found] == sorted((score for _, score in found), reverse=True)


def test_every_page_has_its_package_here():
    """No page is left out of these tests."""
    assert {path.stem for path in HOWTO.glob("*.ipynb")} == set(NEEDS)


def test_langchain(page):
    """A store of the page's classes, with awkward texts among the documents."""
    names = page("langchain")
    texts, model = [*names["DOCUMENTS"], *AWKWARD], names["model"]
    store = names["QdrantVectorStore"].from_texts(
        texts,
        sparse_embedding=names["MiniCOILSparse"](model),
        retrieval_mode=names["RetrievalMode"].SPARSE,
        sparse_vector_params={"modifier": names["models"].Modifier.IDF},
        location=":memory:",
    )

    def ask(question):
        return [(d.page_content, score) for d, score in store.similarity_search_with_score(question, k=20)]

    finds_what_is_there(texts, ask)
    assert names["store"].similarity_search("the of", k=1)
    assert names["sparse"].similarity_search("the of", k=1) == []


def test_llamaindex(page):
    """An index of the page's functions; a node without a text has no place in one."""
    names = page("llamaindex")
    texts = [*names["DOCUMENTS"], *AWKWARD[1:]]
    store = names["QdrantVectorStore"](
        "all",
        client=names["QdrantClient"](":memory:"),
        enable_hybrid=True,
        sparse_doc_fn=names["sparse_documents"],
        sparse_query_fn=names["sparse_queries"],
        sparse_config=names["models"].SparseVectorParams(modifier=names["models"].Modifier.IDF),
    )
    from llama_index.core.schema import TextNode

    index = names["VectorStoreIndex"](
        [TextNode(text=text) for text in texts],
        storage_context=names["StorageContext"].from_defaults(vector_store=store),
        embed_model=names["MiniCOILDense"](names["model"]),
    )
    sparse = index.as_retriever(vector_store_query_mode="sparse", similarity_top_k=20, sparse_top_k=20)
    finds_what_is_there(texts, lambda question: [(n.text, n.score) for n in sparse.retrieve(question)])
    assert names["hybrid"].retrieve("the of")


def test_llamaindex_would_read_a_query_as_a_document():
    """What the page warns of: the store's own helper calls `embed` for queries."""
    pytest.importorskip(NEEDS["llamaindex"], reason="pip install minicoil[frameworks]")
    import inspect

    from llama_index.vector_stores.qdrant.utils import fastembed_sparse_encoder

    source = inspect.getsource(fastembed_sparse_encoder)
    assert "model.embed(" in source
    assert "query_embed" not in source


def test_haystack(page):
    """Pipelines of the page's components, written as YAML and read again."""
    names = page("haystack")
    texts = [*names["DOCUMENTS"], *AWKWARD]
    store = names["QdrantDocumentStore"](
        ":memory:", index="all", embedding_dim=384, use_sparse_embeddings=True, sparse_idf=True,
        progress_bar=False,
    )  # fmt: skip
    given = [names["Document"](content=text) for text in texts]
    made = names["MiniCOILDocumentEmbedder"](avg_len=6).run(given)["documents"]
    assert [document.id for document in made] == [document.id for document in given]
    assert all(document.sparse_embedding is None for document in given)
    store.write_documents(made)
    pipeline = names["Pipeline"]()
    pipeline.add_component("embedder", names["MiniCOILTextEmbedder"]())
    pipeline.add_component("retriever", names["QdrantSparseEmbeddingRetriever"](store, top_k=20))
    pipeline.connect("embedder.sparse_embedding", "retriever.query_sparse_embedding")
    find = names["find"]
    finds_what_is_there(texts, lambda question: [(d.content, d.score) for d in find(pipeline, question)])
    for component in (names["MiniCOILDocumentEmbedder"](avg_len=6), names["MiniCOILTextEmbedder"]()):
        alone = names["Pipeline"]()
        alone.add_component("embedder", component)
        assert "english" in alone.dumps()


def test_sentence_transformers(page):
    """The similarity of the page's encoder is the exact score."""
    names = page("sentence-transformers")
    texts, encoder = names["DOCUMENTS"], names["encoder"]
    documents = encoder.encode_document(texts)

    def ask(question):
        scores = encoder.similarity(encoder.encode_query([question]), documents)[0].tolist()
        return sorted(zip(texts, scores), key=lambda pair: -pair[1])

    finds_what_is_there(texts, ask)
    assert names["found"]["dot_ndcg@8"] == 1


def test_mteb(page):
    """MTEB's figure is that of the same encoder's similarity, measured by ir-measures."""
    import ir_measures

    names = page("mteb")
    documents, questions, encoder = names["documents"], names["questions"], names["encoder"]
    vectors = encoder.encode_document([text for _, text in documents])
    scores = encoder.similarity(encoder.encode_query([text for _, text in questions]), vectors).tolist()
    run = {q: dict(zip([d for d, _ in documents], row)) for (q, _), row in zip(questions, scores)}
    judged = {q: names["judged"][q] for q, _ in questions}
    found = ir_measures.calc_aggregate([ir_measures.nDCG @ 10], judged, run)
    assert names["scores"]["ndcg_at_10"] == pytest.approx(found[ir_measures.nDCG @ 10], abs=0.002)
    assert names["scores"]["ndcg_at_10"] > 0.5
