"""How long a caller of `minicoil serve` waits, beside `embed` in the process; writes results/serve.json.

    python tests/bench/serve.py --model outputs/demo/23_model [--seconds 60]

The texts are bundled sentences, every fifth of them twelve at once. The clients run in a process of their own
on the same machine, so they take processor time from the server: the figures are lower bounds."""

import argparse
import json
import multiprocessing
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from endpoints import Client, command
from record import save_record
from serving import mixed_texts

ROOT = Path(__file__).resolve().parents[2]
READING = {"normalize": True, "windows": True}


def waits(seconds):
    """p50 and p99 of a list of seconds, in milliseconds."""
    p50, p99 = np.percentile(np.array(seconds) * 1000, [50, 99])
    return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


def in_process(model, texts, queries):
    """`embed` in this process: a text at a time, a query at a time, and all texts at once."""
    alone = []
    for text in texts:
        begin = time.perf_counter()
        next(iter(model.embed(text, **READING)))
        alone.append(time.perf_counter() - begin)
    asked = []
    for query in queries:
        begin = time.perf_counter()
        next(iter(model.query_embed(query, **READING)))
        asked.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    list(model.embed(texts, **READING))
    all_at_once = len(texts) / (time.perf_counter() - begin)
    return {
        "texts": {**waits(alone), "texts_per_second": round(len(texts) / sum(alone), 1)},
        "queries": waits(asked),
        "all_at_once": {"texts_per_second": round(all_at_once, 1)},
    }


def call(address, texts, fields, size, number, end, answers):
    """One client: requests of `size` texts, one after the other, until `end`."""
    seconds, errors, at = [], 0, number * 7
    with Client(address) as client:
        while time.monotonic() < end:
            some = [texts[(at + i) % len(texts)] for i in range(size)]
            begin = time.perf_counter()
            status, body = client.ask("/embed_sparse", {"inputs": some, **fields})
            seconds.append(time.perf_counter() - begin)
            errors += status != 200 or len(json.loads(body)) != size
            at += size
    answers.append((seconds, errors))


def clients(address, texts, fields, size, n, duration, queue):
    """`n` clients at once for `duration` seconds; in a process of their own."""
    answers, end = [], time.monotonic() + duration
    with ThreadPoolExecutor(n) as pool:
        for number in range(n):
            pool.submit(call, address, texts, fields, size, number, end, answers)
    seconds = [s for some, _ in answers for s in some]
    assert len(answers) == n, "a client failed"
    rate = size * len(seconds) / duration
    queue.put(
        {
            "clients": n,
            "texts_a_request": size,
            "requests": len(seconds),
            "errors": sum(errors for _, errors in answers),
            **waits(seconds),
            "texts_per_second": round(rate, 1),
        }
    )


def loaded(address, *given):
    """What `clients` found."""
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=clients, args=(address, *given, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--seconds", type=float, default=60, help="of 32 clients; the others a third of it")
    parser.add_argument("--texts", type=int, default=300)
    parser.add_argument("--out", default=ROOT / "results" / "serve.json", type=Path)
    given = parser.parse_args()
    from minicoil import MiniCOIL

    texts = mixed_texts(None, None, given.texts)
    queries = [" ".join(text.split()[:6]) for text in texts]
    model = MiniCOIL.load(given.model)
    list(model.embed(texts[:32], **READING))
    results = {"threads": model.lanes, "in_process": in_process(model, texts, queries)}
    with command("--model", given.model) as (address, process):
        asked, third = {"prompt_name": "query"}, given.seconds / 3
        results["served"] = {
            "queries, 1 client": loaded(address, queries, asked, 1, 1, third),
            "queries, 32 clients": loaded(address, queries, asked, 1, 32, third),
            "texts, 1 client": loaded(address, texts, {}, 1, 1, third),
            "texts, 32 clients": loaded(address, texts, {}, 1, 32, given.seconds),
            "batches, 4 clients": loaded(address, texts, {}, 32, 4, third),
        }
        process.send_signal(signal.SIGTERM)
        results["exit_code"] = process.wait(60)
    save_record(given.out, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
