"""A stand-in for a Qdrant server: speaks its gRPC, keeps points in memory, can fail on demand.

It knows just the calls that the store makes. And a proxy that delays and cuts.
"""

import contextlib
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from qdrant_client import grpc as q


class FakeQdrant(q.CollectionsServicer, q.PointsServicer):
    """What was asked:

    `created` {collection: request}, `indexes`, `points` {collection: {id: payload}}, `calls`; `failures` are
    given to the next calls; of calls named in `lost` the next does its work, but its answer is lost.
    """

    def __init__(self, key=None):
        self.key, self.created, self.indexes, self.points, self.calls, self.failures, self.lost = (
            key,
            {},
            {},
            {},
            [],
            [],
            [],
        )

    def called(self, name, context):
        self.calls.append(name)
        if self.key and ("api-key", self.key) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")
        if self.failures:
            context.abort(self.failures.pop(0), "by the test")

    def answered(self, name, context):
        if name in self.lost:
            self.lost.remove(name)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")

    def List(self, request, context):
        self.called("list", context)
        return q.ListCollectionsResponse(
            collections=[q.CollectionDescription(name=name) for name in self.created]
        )

    def CollectionExists(self, request, context):
        self.called("exists", context)
        return q.CollectionExistsResponse(
            result=q.CollectionExists(exists=request.collection_name in self.created)
        )

    def Create(self, request, context):
        self.called("create", context)
        if request.collection_name in self.created:
            context.abort(
                grpc.StatusCode.ALREADY_EXISTS, f"Collection `{request.collection_name}` already exists!"
            )
        self.created[request.collection_name], self.points[request.collection_name] = request, {}
        self.answered("create", context)
        return q.CollectionOperationResponse(result=True)

    def Get(self, request, context):
        self.called("get", context)
        asked = self.created[request.collection_name]
        params = q.CollectionParams(
            vectors_config=asked.vectors_config,
            sparse_vectors_config=asked.sparse_vectors_config,
            shard_number=asked.shard_number,
            on_disk_payload=asked.on_disk_payload,
        )
        hnsw = q.HnswConfigDiff(m=asked.hnsw_config.m, ef_construct=100, full_scan_threshold=10_000)
        optimizer = q.OptimizersConfigDiff(
            deleted_threshold=0.2,
            vacuum_min_vector_number=1000,
            default_segment_number=0,
            flush_interval_sec=5,
        )
        config = q.CollectionConfig(
            params=params,
            hnsw_config=hnsw,
            optimizer_config=optimizer,
            wal_config=q.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0),
        )
        schema = {field: q.PayloadSchemaInfo(data_type=kind) for field, kind in self.indexes.items()}
        return q.GetCollectionInfoResponse(
            result=q.CollectionInfo(
                status=q.CollectionStatus.Green,
                optimizer_status=q.OptimizerStatus(ok=True),
                config=config,
                payload_schema=schema,
            )
        )

    def CreateFieldIndex(self, request, context):
        self.called("index", context)
        self.indexes[request.field_name] = {
            "forms": q.PayloadSchemaType.Text,
            "draw": q.PayloadSchemaType.Integer,
        }[request.field_name]
        self.answered("index", context)
        return done()

    def Upsert(self, request, context):
        self.called("upsert", context)
        for point in request.points:
            self.points[request.collection_name][point.id.num] = point.payload
        self.answered("upsert", context)
        return done()

    def Count(self, request, context):
        self.called("count", context)
        return q.CountResponse(result=q.CountResult(count=len(self.points[request.collection_name])))

    def Scroll(self, request, context):
        self.called("scroll", context)
        wanted = set(request.filter.must[0].field.match.text_any.split())
        found = [
            (p["draw"].integer_value, i)
            for i, p in self.points[request.collection_name].items()
            if wanted & set(p["forms"].string_value.split())
        ]
        points = [
            q.RetrievedPoint(id=q.PointId(num=i), payload={"draw": q.Value(integer_value=key)})
            for key, i in sorted(found)[: request.limit]
        ]
        return q.ScrollResponse(result=points)


def done():
    """The answer to a change."""
    return q.PointsOperationResponse(result=q.UpdateResult(operation_id=1, status=q.UpdateStatus.Completed))


@contextlib.contextmanager
def serving(fake):
    """Serve on a free port of this machine.

    Yields the URL that the store is given, whose gRPC port is the next one.
    """
    server = grpc.server(ThreadPoolExecutor(4))
    q.add_CollectionsServicer_to_server(fake, server)
    q.add_PointsServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port - 1}"
    finally:
        server.stop(0).wait()


class Proxy:
    """Stands between a client and a server on this machine.

    Passes bytes on, `delay` seconds late, and cuts a connection after a random number of bytes up to `cut`,
    so that a call, or its answer, is lost half-way. `away` refuses everybody, `silent` never passes on an
    answer.
    """

    def __init__(self, url, delay=0.0, cut=0, seed=0):
        self.target, self.delay, self.cut, self.rng = (
            ("127.0.0.1", int(url.rpartition(":")[2]) + 1),
            delay,
            cut,
            random.Random(seed),
        )
        self.away = self.silent = False
        self.cuts, self.open, self.listener = 0, set(), socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1] - 1}"
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):  # the listener was closed: that is the end
            while True:
                client, _ = self.listener.accept()
                if self.away:
                    client.close()
                    continue
                server = socket.create_connection(self.target)
                left = [self.rng.randrange(self.cut // 10, self.cut) if self.cut else float("inf")]
                self.open |= {client, server}
                for a, b, answers in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self.pass_on, args=(a, b, left, answers), daemon=True).start()

    def pass_on(self, a, b, left, answers):
        with contextlib.suppress(OSError):
            while data := a.recv(4096):
                threading.Event().wait(self.delay)
                if answers and self.silent:
                    continue
                left[0] -= len(data)
                if left[0] < 0:
                    self.cuts += 1
                    break
                b.sendall(data)
        for s in (a, b):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def hang_up(self):
        """Cut every connection now."""
        for s in list(self.open):  # `accept` adds to it meanwhile
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.hang_up()


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
