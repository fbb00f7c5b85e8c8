"""Chains to start, kill and compare: shared by test_kill, test_determinism and test_two_models."""

import contextlib
import hashlib
import logging
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from unittest import mock

import minicoil.stages.model
from minicoil.runs.run import STAGES, open_run, stage_function

TO_MODEL = list(STAGES)[: list(STAGES).index("model") + 1]
STARTED = []  # every process a test started: `end_all` ends what still lives


def work(run, *stages):
    """Do stages in this process, without kernels: the undisturbed way. Returns the run."""
    logging.getLogger("torch.__trace").disabled = True  # thousands of lines about an ONNX export
    for stage in stages:
        stage_function(stage)(run)
    return run


GRAPHS = {}  # {(path of a transformer, layers): its graph}, what `one_export` has exported


@contextlib.contextmanager
def one_export():
    """A transformer is exported once in this process, and copied from then on.

    For tests that make several models and are not about their graphs: an export takes ten seconds.
    """
    real = minicoil.stages.model.export_onnx

    def once(transformer, path):
        key = (str(transformer.path), transformer.layers)
        if key not in GRAPHS:
            real(transformer, path)
            GRAPHS[key] = path.read_bytes()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(GRAPHS[key])

    with mock.patch.object(minicoil.stages.model, "export_onnx", once):
        yield


def undisturbed(folder, **given):
    """The folder of a run of the stages until the model, made in this process.

    Made once however often it is asked for.
    """
    work(open_run(folder, **given), *TO_MODEL)
    return folder


def digests(folder):
    """{relative path: sha256} of every file below a folder."""
    files = sorted(f for f in Path(folder).rglob("*") if f.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def copy_before(source, stage, target):
    """A copy of a run as it stands before `stage`: that stage and all later ones are not there.

    Returns the copy.
    """
    gone = [
        name
        for names in list(STAGES.values())[list(STAGES).index(stage) :]
        for name in (names[0], f"{names[0]}.ipynb")
    ]
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*.lock", "log.txt", *gone))
    return target


def with_notebooks(folder):
    """Give every finished stage of a run an executed notebook, as a chain would have left it.

    Returns the folder.
    """
    (folder / "notebooks").mkdir(exist_ok=True)
    for name, _ in STAGES.values():
        if (folder / name / "manifest.json").exists():
            (folder / "notebooks" / f"{name}.ipynb").write_text('{"cells": []}')
    return folder


def command(out, *options):
    """`minicoil run` on a folder, as a list for Popen."""
    return [str(Path(sys.executable).with_name("minicoil")), "run", "--out", str(out), *map(str, options)]


def start(arguments, **environment):
    """Start a command in a process group of its own, with some more environment variables.

    It is ended with the test.
    """

    def hear():  # tests in the background of a shell ignore Ctrl-C, and would hand that down
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    process = subprocess.Popen(
        arguments,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        preexec_fn=hear,
    )
    STARTED.append(process)
    return process


def finish(process, seconds=1800):
    """Wait for a process; returns (exit code, stderr)."""
    _, errors = process.communicate(timeout=seconds)
    return process.returncode, errors


def end_all():
    """Kill the groups of the started processes that still live, and read out their pipes."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        if not process.stdout.closed:
            process.communicate()


def starts(folder, stage):
    """Pids of the kernels that began `stage`, from the run's log."""
    log = Path(folder) / "log.txt"
    return [
        int(pid) for pid in re.findall(rf" {stage} pid=(\d+) start", log.read_text() if log.exists() else "")
    ]


def wait_until(process, happened, what, seconds=1200):
    """Look every few milliseconds until `happened()` is true; the process must not end before."""
    until = time.monotonic() + seconds
    while not happened():
        assert process.poll() is None, (
            f"ended with {process.returncode} before {what}: {process.communicate()[1]}"
        )
        assert time.monotonic() < until, f"no {what} within {seconds} s"
        time.sleep(0.004)


def kill(process, *others, at=""):
    """SIGKILL to the process group, and to other pids; nobody is waited for. Says what was killed when."""
    os.killpg(process.pid, signal.SIGKILL)
    for pid in others:
        os.kill(pid, signal.SIGKILL)
    also = f" and kernel pid={others[0]}" if others else ""
    print(f"{time.strftime('%H:%M:%S')} killed driver group pid={process.pid}{also} at {at}", flush=True)


def kill_in_stage(arguments, folder, stage, kernel_too=False):
    """Start a chain and kill it as soon as `stage` is at work.

    The kernel too if asked for, else it lives on for a moment.
    """
    before = len(starts(folder, stage))
    process = start(arguments)
    wait_until(process, lambda: len(starts(folder, stage)) > before, f"the start of {stage}")
    kill(process, *(starts(folder, stage)[-1:] if kernel_too else ()), at=f"stage {stage}")


def small_corpus(path, words=("bat", "bank"), each=60, others=80):
    """A text file with some of the bundled sentences, a line each:

    `each` of every word and `others` without them.
    """
    from minicoil.text.readers import bundled_sentences

    rows = [r for r in bundled_sentences() if r["split"] == "train"]
    lines = [
        s for w in words for s in list(dict.fromkeys(r["sentence"] for r in rows if r["word"] == w))[:each]
    ]
    lines += list(dict.fromkeys(r["sentence"] for r in rows if r["word"] not in words))[:others]
    random.Random(0).shuffle(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def made_up_corpus(path, words, sentences=12_000, length=10):
    """A text file of made-up sentences in which `words` words, of one piece each, are about as frequent."""
    from minicoil.text.transformer import load_tokenizer
    from minicoil.text.vocabulary import stemmer, stop_words

    stem, stops, rng = stemmer("english").stem_word, stop_words("english"), random.Random(0)
    known = sorted(
        w
        for w in load_tokenizer("all-MiniLM-L6-v2").get_vocab()
        if w.isascii() and w.isalpha() and len(w) > 3 and w not in stops
    )
    chosen = list({stem(w): w for w in known}.values())[:words]
    path.write_text(
        "".join(" ".join(rng.choices(chosen, k=length)).capitalize() + ".\n" for _ in range(sentences)),
        encoding="utf-8",
    )
    return path


def tiny_transformer(folder, hidden_size, seed, dim=None, max_length=128):
    """Save a random BERT of two layers with MiniLM's tokenizer as a sentence transformer;

    `dim` adds a projection. Returns its folder.
    """
    import torch

    from minicoil.text.transformer import bundled_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sentence_transformers import SentenceTransformer, models
    from transformers import AutoTokenizer, BertConfig, BertModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(bundled_model())
    shape = dict(
        hidden_size=hidden_size, num_hidden_layers=2, num_attention_heads=4, intermediate_size=2 * hidden_size
    )
    plain = folder.with_name(folder.name + "-plain")
    BertModel(
        BertConfig(
            vocab_size=tokenizer.vocab_size,
            max_position_embeddings=max_length,
            initializer_range=0.2,
            **shape,
        )
    ).save_pretrained(plain)
    tokenizer.save_pretrained(plain)
    modules = [models.Transformer(str(plain), max_seq_length=max_length), models.Pooling(hidden_size, "mean")]
    SentenceTransformer(
        modules=modules + ([models.Dense(hidden_size, dim)] if dim else []), device="cpu"
    ).save(str(folder))
    return folder
