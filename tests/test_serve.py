"""`minicoil serve`: the same vectors as `embed`, limits that hold, and an end that loses nothing."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from calls import call
from conftest import minicoil
from endpoints import Client, command, endpoint

from minicoil import MiniCOIL
from minicoil.commands.requests import Limits

ROOT = Path(__file__).resolve().parents[1]
LONG = "The bank of the river was steep, and a bat flew over it. " * 60
TEXTS = [
    "A bat left its cave.",
    "",
    "bats® and ﬁne banks",
    LONG,
    "the of and",
    "zzyzx\x0cbat\u200b",
    "He swung the bat at the ball, and the seal on the bank barked.",
    "蝙蝠 bat 🦇",
    *(f"The bat number {n} of {n * n} sat on the bank of the river {'and slept ' * n}" for n in range(24)),
]


@pytest.fixture(scope="module")
def model(model_folder):
    """The session's model, on two threads."""
    return MiniCOIL.load(model_folder, threads=2)


def assert_same(found, expected):
    """The same indices in the same order, and values that differ by less than 1e-5."""
    for vector, right in zip(found, expected, strict=True):
        assert list(vector) == right.indices.tolist()
        assert np.abs(np.array(list(vector.values())) - right.values).max(initial=0) < 1e-5


def at_once(address, requests, n=8):
    """The sparse vectors of (inputs, fields), asked by `n` clients at a time."""

    def one(given):
        with Client(address) as client:
            return client.sparse(given[0], **given[1])

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(one, requests))


def eventually(true, seconds=300):
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


@pytest.fixture
def gate(monkeypatch):
    """An event that is set; while a test has it cleared the transformer waits, so that what is asked
    meanwhile is asked at once, however slowly a machine asks."""
    import minicoil.commands.batching as batching

    opened, real = threading.Event(), batching.forward
    opened.set()

    def held(*given):
        opened.wait(600)
        return real(*given)

    monkeypatch.setattr(batching, "forward", held)
    yield opened
    opened.set()


@pytest.mark.parametrize("cut", [False, True], ids=["ours", "fastembed"])
def test_vectors_are_those_of_embed_whatever_the_batch(model, cut):
    """Texts sent alone, at once and in batches get what `embed` and `query_embed` give in the process."""
    how = {} if cut else {"normalize": True, "windows": True}
    documents, queries = list(model.embed(TEXTS, **how)), list(model.query_embed(TEXTS, **how))
    with endpoint(model, cut=cut) as (address, _):
        alone = at_once(address, [(text, {}) for text in TEXTS])
        assert_same([vector for (vector,) in alone], documents)
        asked = at_once(address, [(text, {"prompt_name": "query"}) for text in TEXTS])
        assert_same([vector for (vector,) in asked], queries)
        with Client(address) as client:
            assert_same(client.sparse(TEXTS), documents)
            dense = json.loads(client.ask("/embed", {"inputs": TEXTS})[1])
            if not cut:
                assert client.sparse(["", "the of and"]) == [{}, {}]
    assert np.abs(np.array(dense) - model.embed_both(TEXTS, **how)[0]).max() < 1e-5


def test_in_int8_nobody_changes_the_vectors_of_others(model_folder):
    """A transformer in int8 rounds by the largest number of a batch: each text gets what it gets alone."""
    model = MiniCOIL.load(model_folder, precision="int8", threads=2)
    short = [text for text in TEXTS if text != LONG]
    alone = [next(model.embed(text, normalize=True, windows=True)) for text in short]
    with endpoint(model) as (address, _):
        found = at_once(address, [(text, {}) for text in short], n=16)
    assert_same([vector for (vector,) in found], alone)


def test_callers_share_batches(model, gate):
    """Sixty requests at once take fewer batches than requests: the transformer was not called for each."""
    requests = [(f"the bat number {n}", {}) for n in range(60)]
    with endpoint(model) as (address, mine), ThreadPoolExecutor(1) as pool:
        gate.clear()
        asked = pool.submit(at_once, address, requests, n=60)
        eventually(lambda: mine.requests == 60)
        gate.set()
        asked.result()
        with Client(address) as client:
            batches = client.metric("te_batch_next_size_count")
            assert client.metric("te_batch_next_size_sum") == 60
            assert client.metric('te_request_success{method="single"}') == 60
    assert batches < 60


def test_truncation(model):
    """A text that is too long is refused, or cut on the side that is named; windows read all of others."""
    words = "the bank " * 40 + "bat"
    with endpoint(model, Limits(tokens=20)) as (address, _), Client(address) as client:
        status, body = client.ask("/embed_sparse", {"inputs": words})
        assert (status, json.loads(body)["error_type"]) == (413, "Validation")
        (right,) = client.sparse(words, truncate=True)
        (left,) = client.sparse(words, truncate=True, truncation_direction="Left")
    bat = model.vocabulary.ids["bat"] * model.dim
    assert bat in left
    assert bat not in right


def test_raw_sentence_embeddings(model):
    """`normalize`: false gives the mean of the windows, which has another length but the same direction."""
    text = LONG + "He swung at the ball. " * 60
    with endpoint(model) as (address, _), Client(address) as client:
        raw = np.array(json.loads(client.ask("/embed", {"inputs": text, "normalize": False})[1]))[0]
        unit = np.array(json.loads(client.ask("/embed", {"inputs": text})[1]))[0]
    assert abs(np.linalg.norm(unit) - 1) < 1e-5
    assert np.linalg.norm(raw) < 0.999
    assert np.allclose(raw / np.linalg.norm(raw), unit, atol=1e-5)


def test_too_many_are_refused_and_the_rest_answered(model, gate):
    """With two places, more callers at once get 429 with Retry-After, and nobody gets anything else."""
    with endpoint(model, Limits(requests=2)) as (address, _):
        gate.clear()

        def one(_):
            with Client(address) as client:
                client.line.request("POST", "/embed_sparse", json.dumps({"inputs": LONG}), client.headers)
                answer = client.line.getresponse()
                if answer.status != 200:
                    gate.set()  # two wait for an answer
                return answer.status, answer.headers["Retry-After"], json.loads(answer.read())

        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(one, range(48)))
        refused = [answer for answer in answers if answer[0] != 200]
        assert 0 < len(refused) < 48
        assert {(status, after, body["error_type"]) for status, after, body in refused} == {
            (429, "1", "Overloaded")
        }
        with Client(address) as client:
            assert client.metric('te_request_failure{err="overloaded"}') == len(refused)
            assert client.ask("/embed_sparse", {"inputs": "a bat"})[0] == 200


def test_a_full_queue_is_429(model, gate):
    """Tokens that wait are bounded: beyond that a request is refused, and takes no memory."""
    limits = Limits(texts=1, tokens=4000, batch_tokens=64)
    with endpoint(model, limits) as (address, mine):
        gate.clear()
        with ThreadPoolExecutor(12) as pool:

            def one(_):
                with Client(address) as client:
                    status, _ = client.ask("/embed_sparse", {"inputs": LONG[:3000]})
                if status != 200:
                    gate.set()  # the queue is full
                return status

            statuses = list(pool.map(one, range(36)))
        assert set(statuses) == {200, 429}
        assert mine.batcher.queue.tokens == 0


def test_no_time_and_nobody_waiting(model, gate):
    """A request that takes too long is refused with 503, one whose caller hangs up is dropped; what waited
    of both is not worked on any more."""
    with endpoint(model, Limits(seconds=0.5)) as (address, mine):
        gate.clear()
        with Client(address) as client:
            status, body = client.ask("/embed_sparse", {"inputs": [LONG] * 20})
            assert (status, json.loads(body)["error_type"]) == (503, "Overloaded")
        eventually(lambda: mine.batcher.queue.tokens == 0)
        object.__setattr__(mine.limits, "seconds", 600)
        gone = Client(address)
        body = json.dumps({"inputs": [LONG] * 20})
        gone.line.request("POST", "/embed_sparse", body, gone.headers)
        eventually(lambda: mine.batcher.queue.tokens > 0)
        gone.line.close()
        eventually(lambda: mine.batcher.queue.tokens == 0)
        eventually(lambda: mine.requests == 0)
        gate.set()
        with Client(address) as client:
            assert len(client.sparse(["a bat"])) == 1


def test_a_fault_is_424_and_the_next_request_is_answered(model, monkeypatch):
    """When the transformer fails, the callers of that batch are told, and the server goes on."""
    import minicoil.commands.batching as batching

    def fails(*_):
        raise RuntimeError("a secret of ours")

    with endpoint(model) as (address, _), Client(address) as client:
        with monkeypatch.context() as m:
            m.setattr(batching, "forward", fails)
            status, body = client.ask("/embed_sparse", {"inputs": "a bat"})
        assert (status, json.loads(body)["error_type"]) == (424, "Backend")
        assert "secret" not in body
        assert client.ask("/health")[0] == 200
        assert len(client.sparse("a bat")) == 1


RAW = [
    b"\x00\xff\r\n\r\n",
    b"POST /embed_sparse HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    b"POST /embed_sparse HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n\r\n",
    b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 90\r\n\r\n{",
    b"POST /embed_sparse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
]


def test_strange_bytes_do_no_harm(model):
    """Whatever comes over the line, also a caller who leaves in the middle, the next one is answered."""
    with endpoint(model) as (address, mine):
        place = urlsplit(address)
        for raw in RAW:
            answer = b""  # who is refused may be answered, and hung up on, before all is sent
            with socket.create_connection((place.hostname, place.port), timeout=300) as line:
                with contextlib.suppress(ConnectionError):
                    line.sendall(raw)
                    line.shutdown(socket.SHUT_WR)
                with contextlib.suppress(ConnectionError):
                    answer = line.recv(1000)
            assert b"200 OK" not in answer
        eventually(lambda: mine.requests == 0)
        with Client(address) as client:
            assert client.ask("/health") == (200, "")


def test_a_body_without_end_is_refused(model):
    """A body that does not say how long it is, and never ends, is refused at the limit."""
    with endpoint(model, Limits(body=10_000)) as (address, _):
        place = urlsplit(address)
        with socket.create_connection((place.hostname, place.port), timeout=300) as line:
            line.sendall(
                b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            with contextlib.suppress(ConnectionError):  # it is refused before all is sent
                for _ in range(12):
                    line.sendall(b"3e8\r\n" + b" " * 1000 + b"\r\n")
            assert line.recv(1000).startswith(b"HTTP/1.1 413")


def test_the_command_stops_well(model_folder):
    """SIGTERM: no new connections, the requests in progress are answered, exit code 0, not a word."""
    with command("--model", model_folder, "--threads", 1, "--timeout", 1200) as (address, process):
        with Client(address) as client:
            assert client.ask("/health") == (200, "")
            body = json.dumps({"inputs": [LONG] * 24})
            client.line.request("POST", "/embed_sparse", body, client.headers)
            with Client(address) as other:
                eventually(lambda: other.metric("te_queue_tokens") > 0)
            process.send_signal(signal.SIGTERM)
            answer = client.line.getresponse()
            assert (answer.status, len(json.loads(answer.read()))) == (200, 24)
        assert process.wait(600) == 0
        assert process.stderr.read() == ""
        with pytest.raises(OSError):
            Client(address).ask("/health")


def test_the_token_is_asked_for_and_never_shown(model_folder):
    """A token comes from the environment; without it only /health answers."""
    secret = "a-token-that-nobody-prints"
    given = {"MINICOIL_TOKEN": secret}
    with command("--model", model_folder, "--threads", 1, **given) as (address, process):
        with Client(address) as client:
            assert client.ask("/health")[0] == 200
            for path in ("/info", "/metrics", "/openapi.json", "/nothing"):
                assert client.ask(path)[0] == 401
            assert client.ask("/embed_sparse", {"inputs": "a bat"})[0] == 401
            right = {"Authorization": f"Bearer {secret}"}
            assert client.ask("/embed_sparse", {"inputs": "a bat"}, **right)[0] == 200
            assert secret not in client.ask("/info", **right)[1]
        assert secret not in " ".join(process.args)
        process.send_signal(signal.SIGINT)
        assert process.wait(600) == 0
        assert secret not in process.stderr.read()


REFUSED = {
    "taken": ["--port", "PORT"],
    "a port of no kind": ["--port", "70000"],
    "no such host": ["--host", "no.such.host.example"],
    "no token": ["--token-env", "NO_SUCH_TOKEN"],
    "no requests": ["--max-concurrent-requests", "0"],
    "no texts": ["--max-client-batch-size", "0"],
    "no time": ["--timeout", "0"],
    "a precision of no kind": ["--precision", "int4"],
    "an impossible length": ["--avg-len", "0"],
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_served_is_refused_in_one_line(case, model_folder, tmp_path):
    """A wrong option ends in one line with exit code 2, before anything is answered."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = [port if part == "PORT" else part for part in REFUSED[case]]
        asked = ("serve", "--model", model_folder, *given)
        done = minicoil(*asked, timeout=600) if case == "taken" else call(tmp_path, *asked)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1


def test_without_the_extra_one_line_says_what_to_install(model_folder):
    """Without starlette or uvicorn the command names the extra; the other commands still work."""
    code = (
        "import importlib.util, sys\n"
        "real = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'uvicorn' else real(name, *more)\n"
        "sys.modules['uvicorn'] = sys.modules['starlette'] = None\n"
        "from minicoil.commands.pipeline import main\n"
        "main(sys.argv[1:])\n"
    )
    call = [sys.executable, "-c", code]
    done = subprocess.run([*call, "serve", "--model", model_folder], capture_output=True, text=True)
    assert done.returncode == 2
    assert "pip install 'minicoil[serve]'" in done.stderr
    assert subprocess.run([*call, "--help"], capture_output=True).returncode == 0


HOW_TO = (ROOT / "docs" / "howto" / "endpoint.md").read_text(encoding="utf-8")
DOCKERFILE = ROOT / "docs" / "qdrant" / "Dockerfile"


def test_the_how_to_page_runs(model):
    """The program on the page finds the bats, with a Qdrant in memory and an endpoint that runs here."""
    (program,) = re.findall(r"```python\n(.*?)```", HOW_TO, flags=re.DOTALL)
    with endpoint(model) as (address, _):
        program = program.replace("http://127.0.0.1:8080", address)
        names = {}
        exec(program.replace("http://localhost:6333", ":memory:"), names)
    assert [hit.payload["text"] for hit in names["found"]][0] == "At dusk the bats leave their cave."


def test_the_how_to_page_names_what_there_is(model):
    """Every option on the page is one of the command, and every path and field is in its description."""
    offered = minicoil("serve", "--help", env={**os.environ, "COLUMNS": "200"}).stdout
    options = set(re.findall(r"--[a-z][a-z-]+", HOW_TO))
    assert options
    assert options <= set(re.findall(r"--[a-z][a-z-]+", offered)) | {"--model"}
    with endpoint(model) as (address, _), Client(address) as client:
        document = json.loads(client.ask("/openapi.json")[1])
    assert set(document["paths"]) <= set(re.findall(r"`(?:GET|POST) (/\w+)`", HOW_TO))
    fields = set(document["components"]["schemas"]["EmbedRequest"]["properties"]) - {"dimensions"}
    assert fields <= set(re.findall(r"`(\w+)`", HOW_TO))
    statuses = set(document["paths"]["/embed"]["post"]["responses"]) - {"200", "408"}
    assert all(status in HOW_TO for status in statuses)


def test_the_dockerfile_passes_its_linter():
    """hadolint has nothing to say about the Dockerfile."""
    linter = Path(sys.executable).with_name("hadolint")
    if not linter.exists():
        pytest.skip("hadolint is not installed")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_containers_command_and_health_check_work(model_folder):
    """What the image starts serves a model at the port that its health check asks, as no privileged user."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    found = dict(re.findall(r"^(ENTRYPOINT|USER|HEALTHCHECK|EXPOSE)(?: --.*CMD)? (.+)$", text, flags=re.M))
    assert found["USER"].isdecimal()
    assert int(found["USER"]) > 0
    start, check = json.loads(found["ENTRYPOINT"]), json.loads(found["HEALTHCHECK"])
    assert start[:2] == ["minicoil", "serve"]
    assert start[-1] == found["EXPOSE"]
    given = [str(model_folder) if part == "/model" else part for part in start[2:-2]]
    with command(*given, "--host", "127.0.0.1") as (address, process):
        asked = check[-1].replace(f"127.0.0.1:{found['EXPOSE']}", urlsplit(address).netloc)
        assert asked != check[-1]
        assert subprocess.run([sys.executable, *check[1:-1], asked]).returncode == 0
        process.kill()
        process.wait()
        assert subprocess.run([sys.executable, *check[1:-1], asked], capture_output=True).returncode != 0


def test_the_compose_file_fits_the_dockerfile():
    """Ports are this machine's only; the model is mounted where the image looks, and not to be written."""
    import yaml

    path = ROOT / "docs" / "qdrant" / "docker-compose.yml"
    services = yaml.safe_load(path.read_text(encoding="utf-8"))["services"]
    assert all(port.startswith("127.0.0.1:") for one in services.values() for port in one["ports"])
    ours = services["minicoil"]
    assert (path.parent / ours["build"]["context"] / ours["build"]["dockerfile"]).resolve() == DOCKERFILE
    assert [volume.split(":")[-2:] for volume in ours["volumes"]] == [["/model", "ro"]]


@pytest.mark.slow
def test_openapi_holds(model):
    """Schemathesis sends what the document allows and what it forbids: every answer is as described."""
    import schemathesis
    from hypothesis import HealthCheck, given, settings

    with endpoint(model, token="right") as (address, _):
        headers = {"Authorization": "Bearer right"}
        with Client(address) as client:
            document = json.loads(client.ask("/openapi.json", **headers)[1])
        document["servers"] = [{"url": address}]
        schema = schemathesis.openapi.from_dict(document)
        schema.config.base_url = address
        tried = set()
        for operation in schema.get_all_operations():

            @given(case=operation.ok().as_strategy())
            @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
            def holds(case):
                tried.add(case.operation.label)
                case.call_and_validate(headers=headers, timeout=60)

            holds()
    assert len(tried) == 5


@pytest.mark.slow
def test_load(model_folder):
    """32 clients for a minute: no error, vectors are `embed`'s, and the server stops well afterwards."""
    model = MiniCOIL.load(model_folder)
    texts = TEXTS[:3] + TEXTS[4:]
    expected = list(model.embed(texts, normalize=True, windows=True))
    end, answered = time.monotonic() + 60, []
    with command("--model", model_folder) as (address, process):

        def one(number):
            with Client(address) as client:
                turn = number
                while time.monotonic() < end:
                    at = turn % len(texts)
                    assert_same(client.sparse(texts[at]), [expected[at]])
                    answered.append(at)
                    turn += 1

        with ThreadPoolExecutor(32) as pool:
            list(pool.map(one, range(32)))
        process.send_signal(signal.SIGTERM)
        assert process.wait(600) == 0
    assert len(answered) > 32


def test_an_answer_is_sent_at_once():
    """No connection holds the body of an answer back until the client has confirmed its head."""
    from minicoil.commands.serve import listening_socket

    with listening_socket("127.0.0.1", 0) as place, socket.create_connection(place.getsockname()):
        accepted, _ = place.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
