"""A large corpus: each sentence once, two readers, done shards stay done, folders are not mixed up."""

import io
import shutil
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chains import copy_before, digests

from minicoil.runs.files import UserError, load_json
from minicoil.runs.manifest import list_files, load_manifest, save_manifest
from minicoil.runs.run import open_run, stage_function
from minicoil.stages.corpus import convert_openwebtext
from minicoil.stages.draw import draw_from_index, read_draw
from minicoil.stages.sentences import split_sentences, trained_words
from minicoil.stages.targets import encode_targets
from minicoil.text.readers import corpus_bytes, documents, stream_openwebtext

TEXTS = [
    "One bat flew out of the cave.\n\nThe other bat did stay at home.",
    "A bank lends money to people.",
    "Ein Wort: Größe, 字, and a bat in the house.",
    "x",
]


def packed(texts, name="{:07d}.txt"):
    """An xz-compressed tar of texts (str or bytes), as bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for i, text in enumerate(texts):
            raw = text if isinstance(text, bytes) else text.encode()
            info = tarfile.TarInfo(name.format(i))
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return out.getvalue()


@pytest.fixture
def archive(tmp_path):
    """OpenWebText in small: the nested tar, a folder of its inner tars, a Parquet file."""
    inner = tmp_path / "inner"
    inner.mkdir()
    for i in (0, 2):
        (inner / f"urlsf_subset{i:02d}-1_data.xz").write_bytes(packed(TEXTS[i : i + 2]))
    with tarfile.open(tmp_path / "openwebtext.tar.xz", "w:xz") as outer:
        for file in sorted(inner.iterdir()):
            outer.add(file, f"openwebtext/{file.name}")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "owt.parquet")
    return tmp_path


@pytest.mark.parametrize("form", ["openwebtext.tar.xz", "inner"])
def test_both_readers_agree(archive, form):
    """The nested tar, or a folder of its inner tars, gives the documents that `datasets` streams from the
    Parquet form."""
    assert (
        list(documents([str(archive / form)])) == list(stream_openwebtext([archive / "owt.parquet"])) == TEXTS
    )


def test_a_wrong_count_is_noticed(archive, monkeypatch):
    """OpenWebText with another number of documents than it has is bad input."""
    monkeypatch.setattr("minicoil.text.readers.stream_openwebtext", lambda: iter(TEXTS))
    with pytest.raises(UserError, match="gave 4 documents of OpenWebText, which has 8,013,769"):
        list(documents(["openwebtext"]))


def test_progress_counts_every_byte(archive):
    """Over any mix of files and folders progress ends at exactly the bytes it announced."""
    corpus, told = (
        ["demo", str(archive / "inner"), str(archive / "owt.parquet"), str(archive / "openwebtext.tar.xz")],
        [],
    )
    list(documents(corpus, meter=told.append))
    assert sum(told) == corpus_bytes(corpus)
    assert min(told) >= 0
    assert len(told) > 10


def test_a_broken_part_of_an_archive(archive):
    """A broken inner tar and an undecodable document are named; skipped, they leave everything else."""
    (archive / "inner" / "broken.xz").write_bytes(packed(TEXTS)[:100])
    (archive / "inner" / "latin.xz").write_bytes(packed(["caf\xe9".encode("latin-1"), "still there"]))
    skipped = []
    with pytest.raises(UserError, match="broken.xz.*--on-bad-input skip"):
        list(documents([str(archive / "inner")]))
    assert list(documents([str(archive / "inner")], on_bad_input="skip", skipped=skipped)) == [
        "still there",
        *TEXTS,
    ]
    assert any("latin.xz" in s and "UTF-8" in s for s in skipped)
    assert any("broken.xz" in s for s in skipped)


def sentences_run(folder, texts, shard_bytes=800, **given):
    """A run until the sentences, of a text file of documents, in many small shards."""
    folder.mkdir()
    (folder / "corpus.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    run = open_run(folder / "run", corpus=[str(folder / "corpus.txt")], **given)
    convert_openwebtext(run, shard_bytes)
    split_sentences(run)
    return run


def all_sentences(run):
    """The sentences of a run in order."""
    return [t for f in run.stage("sentences").parts("parquet") for t in pq.read_table(f)["text"].to_pylist()]


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    """(run, its lines): 60 lines, each three times, far from each other."""
    lines = [f"The bat number {i} hung in the old cave {i * 7} for a day." for i in range(60)] * 3
    return sentences_run(
        tmp_path_factory.mktemp("repeated") / "r", lines, words=["bat", "cave"], samples=20
    ), lines


def test_each_sentence_once(repeated):
    """A sentence that several shards have stands in the first of them only, and in no index of another."""
    run, lines = repeated
    assert len(run.stage("corpus").parts("parquet")) > 8
    assert all_sentences(run) == list(dict.fromkeys(lines))
    assert run.stage("sentences").manifest["repeated"] == len(lines) - 60
    assert (
        len(
            draw_from_index(
                sorted(run.stage("sentences").path.glob("postings-*")), trained_words(run), 10**6, 0
            )[0][0]
        )
        == 60
    )
    assert not list(run.stage("sentences").path.glob("*.tmp.*"))


def test_no_word_misses_its_samples(repeated):
    """A word has as many samples as asked for, or all its sentences where there are fewer."""
    run, _ = repeated
    word, ids, _ = read_draw(run.stage("sentences").path / "drawn.parquet")
    assert np.bincount(word).tolist() == [20, 20]
    assert len(set(ids[word == 0].tolist())) == 20


@pytest.mark.parametrize("lost", ["p*-00003.parquet", "keep-*.tmp.npy"])
def test_sentences_go_on_after_a_kill(repeated, tmp_path, monkeypatch, lost):
    """Killed in the second round, the stage called again does what is missing and ends in the same bytes."""
    run, lines = repeated
    shutil.copytree(run.dir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "11_sentences")
    begun = open_run(tmp_path / "run")
    monkeypatch.setattr(
        "minicoil.stages.sentences.count_forms", lambda stage: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        split_sentences(begun)
    monkeypatch.undo()
    (begun.stage("sentences").path / "repeated.json").unlink()
    for file in begun.stage("sentences").path.glob(lost):
        file.unlink()
    split_sentences(begun)
    assert digests(begun.stage("sentences").path) == digests(run.stage("sentences").path)


def unfinish(folder):
    """Leave a finished stage's folder as a killed one leaves it: with a journal and no manifest."""
    (folder / "manifest.json").unlink()
    (folder / "written.txt").touch()


def test_finished_target_shards_are_left_alone(tiny_run, tmp_path, monkeypatch):
    """Called again, encoding makes the shards that are missing, only them, and the same."""
    monkeypatch.setattr("minicoil.stages.targets.SHARD_ROWS", 16)
    monkeypatch.setattr("minicoil.stages.targets.cut_shards.__defaults__", (16,))
    whole, again = (
        open_run(copy_before(tiny_run, "targets", tmp_path / name)) for name in ("whole", "again")
    )
    encode_targets(whole)
    shutil.copytree(whole.stage("targets").path, again.stage("targets").path)
    parts = again.stage("targets").parts("npy")
    assert len(parts) >= 3
    unfinish(again.stage("targets").path)
    parts[1].unlink()
    before = {f.name: f.stat().st_mtime_ns for f in again.stage("targets").path.glob("part-*")}
    encode_targets(again)
    after = {f.name: f.stat().st_mtime_ns for f in again.stage("targets").path.glob("part-*")}
    assert {name for name in after if before.get(name) != after[name]} == {parts[1].name}
    assert digests(again.stage("targets").path) == digests(whole.stage("targets").path)


@pytest.mark.parametrize("changed", ["draw", "model"])
@pytest.mark.parametrize("finished", [False, True], ids=["begun", "finished"])
def test_a_mixed_up_folder_is_refused(tiny_run, tmp_path, changed, finished):
    """Embeddings of another draw, or of a model whose weights were replaced, are not gone on with, and not
    taken for finished."""
    run = open_run(copy_before(tiny_run, "store", tmp_path / "run"))
    origin, manifest = (run.stage("targets").path / name for name in ("origin.json", "manifest.json"))
    record = load_json(origin)
    assert record["draw"]
    assert record["weights"]
    text = origin.read_text()
    old = record["draw"] if changed == "draw" else next(iter(record["weights"].values()))
    origin.write_text(text.replace(old, "0" * 64))
    if finished:  # as a whole folder of another run would have it
        files, checksums = list_files(run.stage("targets").path)
        save_manifest(manifest, {**load_manifest(manifest), "files": files, "checksums": checksums})
    else:
        unfinish(manifest.parent)
    with pytest.raises(
        UserError,
        match=f"another {'draw of sentences' if changed == 'draw' else 'target model'}.*--from targets",
    ):
        stage_function("targets")(run)


def test_bf16_ends_in_nearly_the_same(tiny_run, tmp_path):
    """Encoding in bf16 changes embeddings by little, but changes them.

    It is another parameter, and a run made with the other is refused.
    """
    params = load_json(tiny_run / "run.json")["parameters"]
    runs = [
        open_run(tmp_path / precision, **{**params, "precision": precision})
        for precision in ("float32", "bf16")
    ]
    for run in runs:
        for stage in ("corpus", "sentences", "targets"):
            stage_function(stage)(run)
    a, b = (np.load(run.dir / "12_targets" / "part-00000.npy").astype(np.float32) for run in runs)
    assert a.shape == b.shape
    assert 0 < np.abs(a - b).max() < 0.1
    assert (a * b).sum(1).min() > 0.98
    with pytest.raises(UserError, match="--from targets"):
        open_run(run.dir, precision="float32")
