"""What the chain costs as the corpus grows: sentences encoded, the store at millions of points, memory and
time a sentence, two readers.

    python tests/bench/scale.py cover   --corpus enwiki.txt.gz      how many sentences are encoded: by cover,
    all, per word
    python tests/bench/scale.py store   [--points 300000 3000000]   Qdrant Edge: upload, disk, memory, draws
    python tests/bench/scale.py growth  --corpus enwiki.txt.gz      memory and time a sentence at 1, 3 and 10
    times a corpus
    python tests/bench/scale.py readers --corpus openwebtext.txt.gz the Parquet and the tar form of the same
    documents

Each writes its own record, results/scale_NAME.json. Data is never bundled."""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from record import save_record

from minicoil.runs.run import STAGES, open_run, stage_function
from minicoil.stages.draw import draw_from_index, random_keys, read_draw
from minicoil.stages.edge_store import SHARD_POINTS, EdgeStore, draw_from_shard
from minicoil.stages.points import merge
from minicoil.stages.sentences import trained_words
from minicoil.text.readers import documents, stream_openwebtext

TIMES = (1, 3, 10)
RESULTS = Path(__file__).resolve().parents[2] / "results"


def record(measured, results):
    """Write results/scale_NAME.json."""
    save_record(RESULTS / f"scale_{measured}.json", results)
    print(json.dumps(results, indent=1))


def tenths(corpus, folder):
    """{times: a text file with that many tenths of the corpus's documents}, spread over the corpus."""
    files = {times: folder / f"{times}.txt" for times in TIMES}
    with contextlib.ExitStack() as stack:
        opened = {
            times: stack.enter_context(open(file, "w", encoding="utf-8")) for times, file in files.items()
        }
        for number, text in enumerate(documents([corpus])):
            for times, file in opened.items():
                if number % 10 < times:
                    file.write(" ".join(text.split()) + "\n")
    return files


# Sentences to encode


def rows_of_words(run):
    """[sentence ids of each word], all of them, and the number of sentences."""
    stage = run.stage("sentences")
    found = draw_from_index(
        sorted(stage.path.glob("postings-*.parquet")), trained_words(run), 10**9, run.params.seed
    )
    return [ids for ids, _ in found], stage.manifest["sentences"]


def expected_cover(rows, total, n, samples):
    """Expected sizes of (cover, per word) for `n` sentences like the `total` ones whose ids per word are
    `rows`.

    A sentence is in the cover when its key is among the smallest `samples` of any of its words, that is below
    samples / (n p) for its rarest word."""
    share, per_word = np.zeros(total), 0.0
    at = {int(i): k for k, i in enumerate(np.unique(np.concatenate(rows)))}
    for ids in rows:
        mine = min(1.0, samples / (n * len(ids) / total))
        per_word += min(samples, n * len(ids) / total)
        places = np.fromiter((at[i] for i in ids.tolist()), np.int64, len(ids))
        share[places] = np.maximum(share[places], mine)
    return n * share.sum() / total, per_word


def cover(options):
    """Sentences encoded by cover, by all and per word.

    Measured at 1, 3 and 10 tenths, expected at 10⁷ and 3.5·10⁸.
    """
    lines, words = [], None
    with tempfile.TemporaryDirectory() as folder:
        for times, file in reversed(tenths(options.corpus, Path(folder)).items()):
            given = dict(words=words) if words else dict(top_words=options.words)
            run = open_run(
                Path(folder) / f"run{times}",
                jobs=options.jobs,
                corpus=[str(file)],
                samples=options.samples,
                **given,
            )
            for stage in ("corpus", "sentences"):
                stage_function(stage)(run)
            rows, total = rows_of_words(run)
            words = words or list(trained_words(run))
            word, drawn, _ = read_draw(run.stage("sentences").path / "drawn.parquet")
            missed = int(
                sum(
                    count != min(options.samples, len(ids))
                    for count, ids in zip(np.bincount(word, minlength=len(rows)), rows)
                )
            )
            line = {
                "corpus": f"{times}×",
                "measured": True,
                "sentences": total,
                "cover": len(np.unique(drawn)),
                "per_word": len(drawn),
                "words": len(rows),
                "words_that_miss_samples": missed,
            }
            line["expected_cover"] = round(expected_cover(rows, total, total, options.samples)[0])
            lines.insert(0, line)
            if times == 10:
                everything = rows, total
                lines += [
                    {
                        "corpus": f"{n:.1e}",
                        "measured": False,
                        "sentences": int(n),
                        "cover": round(c),
                        "per_word": round(p),
                        "words": len(rows),
                    }
                    for n in (1e7, 3.5e8)
                    for c, p in [expected_cover(*everything, n, options.samples)]
                ]
    for line in lines:
        assert line["cover"] <= min(line["sentences"], line["per_word"]) * 1.001, line
    record("cover", {"samples": options.samples, "rows": lines})


# The store

WORDS, FREQUENT, RARE = 50_000, "frequent", "rare"


def made_up(first, n, dim, rng):
    """(ids, vectors, texts, forms, keys) of n sentences.

    Eight forms each by Zipf's law, one in 20 with a frequent and one in 5,000 with a rare word.
    """
    ids = np.arange(first, first + n)
    drawn = np.minimum(rng.zipf(1.2, size=(n, 8)), WORDS)
    forms = [
        [f"w{w}" for w in row] + [FREQUENT] * (i % 20 == 0) + [RARE] * (i % 5000 == 0)
        for i, row in zip(ids.tolist(), drawn)
    ]
    return (
        ids,
        rng.normal(size=(n, dim)).astype(np.float32),
        [f"sentence number {i} of a text that was never written by anyone at all" for i in ids],
        forms,
        random_keys(0, ids),
    )


def memory():
    """Peak resident memory of this process in MB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def in_process(*arguments):
    """Run a part of this file in a process of its own; its last line, read as JSON."""
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def upload_part(options):
    """Fill a store and say how long it took; the time to make sentences up does not count."""
    rng, seconds, step = np.random.default_rng(0), 0.0, 8192
    with EdgeStore(options.folder, options.dim, options.shard_points) as store:
        for first in range(0, options.n, step):
            rows = made_up(first, min(step, options.n - first), options.dim, rng)
            begin = time.perf_counter()
            store.upload(first, *rows)
            seconds += time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "peak_mb": memory()}))


def draw_part(options):
    """Draw 500 sentences of the frequent and of the rare word.

    Opening every shard and drawing for the first time, and drawing again from open shards.
    """
    times, found = (
        {word: np.zeros((0, options.repeat)) for word in (FREQUENT, RARE)},
        {word: [] for word in (FREQUENT, RARE)},
    )
    with EdgeStore(options.folder, shard_points=options.shard_points) as place:
        for number in range(-(-options.n // options.shard_points)):
            for word in found:
                place.opened.close()
                place.number, seconds = None, []
                for _ in range(options.repeat):
                    begin = time.perf_counter()
                    drawn = draw_from_shard(place.open(number), [word], 500)
                    seconds.append(time.perf_counter() - begin)
                found[word].append(drawn)
                times[word] = np.vstack([times[word], seconds])
    said = {"peak_mb": memory()}
    for word, all_drawn in found.items():
        ids, every = merge(all_drawn, 500)[0], np.arange(0, options.n, 20 if word == FREQUENT else 5000)
        assert ids.tolist() == every[np.argsort(random_keys(0, every))][:500].tolist(), (
            f"not the draw: {word}"
        )
        said[word] = {
            "drawn": len(ids),
            "first_ms": round(1000 * times[word][:, 0].sum(), 1),
            "median_ms": round(1000 * float(np.median(times[word][:, 1:], axis=1).sum()), 2),
        }
    print(json.dumps(said))


def store(options):
    """Qdrant Edge with made-up sentences: upload, disk, memory, draws."""
    lines = []
    for n in options.points:
        with tempfile.TemporaryDirectory() as folder:
            common = (
                "--folder",
                folder,
                "--n",
                n,
                "--dim",
                options.dim,
                "--shard-points",
                options.shard_points,
            )
            up, drawn = (
                in_process("upload-part", *common),
                in_process("draw-part", *common, "--repeat", options.repeat),
            )
            disk = sum(f.stat().st_blocks * 512 for f in Path(folder).rglob("*") if f.is_file())
        lines.append(
            {
                "points": n,
                "shards": -(-n // options.shard_points),
                "upload_per_second": round(n / up["seconds"]),
                "upload_peak_mb": up["peak_mb"],
                "disk_gb": round(disk / 1e9, 2),
                "draw_peak_mb": drawn["peak_mb"],
                FREQUENT: drawn[FREQUENT],
                RARE: drawn[RARE],
            }
        )
        record("store", {"dim": options.dim, "shard_points": options.shard_points, "rows": lines})


# Memory and time


def stage_part(options):
    """Do one stage of a run in this process, alone."""
    run, begin = open_run(options.folder, jobs=1), time.perf_counter()
    stage_function(options.stage)(run)
    print(
        json.dumps(
            {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time(), "peak_mb": memory()}
        )
    )


def growth(options):
    """Memory and time a sentence of each stage, every sentence encoded, at 1, 3 and 10 times a corpus."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        some = folder / "some.txt"
        with open(some, "w", encoding="utf-8") as file:
            for text, _ in zip(documents([options.corpus]), range(options.documents)):
                file.write(" ".join(text.split()) + "\n")
        for times, file in tenths(str(some), folder).items():
            run = open_run(
                folder / f"run{times}",
                corpus=[str(file)],
                top_words=options.words,
                samples=options.samples,
                encode="all",
                pictures=0,
            )
            for stage in list(STAGES)[: list(STAGES).index("training") + 1]:
                facts = in_process("stage-part", "--folder", run.dir, "--stage", stage)
                n = run.stage("sentences").manifest["sentences"] if stage != "corpus" else 0
                lines.append(
                    {
                        "corpus": f"{times}×",
                        "stage": stage,
                        "sentences": n,
                        **{k: round(v, 2) for k, v in facts.items()},
                    }
                )
                print(lines[-1], file=sys.stderr)
            for line in lines:
                line["sentences"] = line["sentences"] or n
            record(
                "growth",
                {
                    "documents": options.documents,
                    "words": options.words,
                    "samples": options.samples,
                    "rows": lines,
                },
            )


# Readers


def pack(texts, folder, a_tar=200):
    """The documents as OpenWebText's archive: a tar of xz-compressed tars of .txt files.

    And its inner tars in a folder.
    """
    (folder / "inner").mkdir()
    with tarfile.open(folder / "openwebtext.tar.xz", "w:xz") as outer:
        for first in range(0, len(texts), a_tar):
            name = f"urlsf_subset{first // a_tar:02d}-1_data.xz"
            with tarfile.open(folder / "inner" / name, "w:xz") as inner:
                for number, text in enumerate(texts[first : first + a_tar], first):
                    info = tarfile.TarInfo(f"{number:07d}.txt")
                    info.size = len(text.encode())
                    inner.addfile(info, io.BytesIO(text.encode()))
            outer.add(folder / "inner" / name, f"openwebtext/{name}")


def readers(options):
    """The same documents through `datasets` from Parquet, from the nested tar and from a folder of its inner
    tars."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts, lines = [t.strip() for t in documents([options.corpus])], []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        pack(texts, folder)
        half = len(texts) // 2
        for part, some in enumerate((texts[:half], texts[half:])):
            pq.write_table(pa.table({"text": some}), folder / f"{part:04d}.parquet")
        forms = {
            "parquet, by datasets": lambda: stream_openwebtext(sorted(folder.glob("*.parquet"))),
            "parquet, by pyarrow": lambda: documents([str(f) for f in sorted(folder.glob("*.parquet"))]),
            "nested tar": lambda: documents([str(folder / "openwebtext.tar.xz")]),
            "folder of inner tars": lambda: documents([str(folder / "inner")]),
        }
        for name, read in forms.items():
            begin = time.perf_counter()
            found = list(read())
            lines.append(
                {
                    "form": name,
                    "documents": len(found),
                    "bytes": sum(len(t.encode()) for t in found),
                    "equal": found == texts,
                    "documents_per_second": round(len(found) / (time.perf_counter() - begin)),
                }
            )
    record("readers", {"corpus": Path(options.corpus).name, "rows": lines})
    assert all(line["equal"] for line in lines), lines


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    for function, options in {
        cover: ("corpus", "words", "samples", "jobs"),
        store: ("points", "dim", "shard_points", "repeat"),
        growth: ("corpus", "words", "samples", "documents"),
        readers: ("corpus",),
        upload_part: ("folder", "n", "dim", "shard_points"),
        draw_part: ("folder", "n", "dim", "shard_points", "repeat"),
        stage_part: ("folder", "stage"),
    }.items():
        command = commands.add_parser(function.__name__.replace("_", "-"))
        command.set_defaults(function=function)
        for name in options:
            known = dict(
                corpus=dict(required=True),
                words=dict(type=int, default=5000),
                samples=dict(type=int, default=300),
                jobs=dict(type=int, default=2),
                documents=dict(type=int, default=3000),
                points=dict(type=int, nargs="+", default=[300_000, 3_000_000]),
                dim=dict(type=int, default=384),
                shard_points=dict(type=int, default=SHARD_POINTS),
                repeat=dict(type=int, default=20),
                folder=dict(required=True),
                n=dict(type=int),
                stage=dict(required=True),
            )
            command.add_argument(f"--{name.replace('_', '-')}", **known[name])
    options = parser.parse_args()
    options.function(options)


if __name__ == "__main__":
    main()
