"""A stand-in for a Qdrant server: speaks its gRPC, keeps points in memory, fails on demand."""
import contextlib
import math
import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
from qdrant_client import grpc as q


class FakeQdrant(q.CollectionsServicer, q.PointsServicer):
    """A server in memory, that answers as 1.18 does in the calls that this project makes.

    `created` {collection: request}, `indexes` {collection: {field: kind}}, `points` {collection: {id:
    payload}}, `vectors` {collection: {id: {name: vector}}}; `calls` lists what was asked. `failures` (a
    status, or with its text) are given to the next calls; of calls named in `lost` the next does its work,
    but its answer is lost. `late` keeps what is not waited for until a change that is, as a journal does; of
    calls named in `forgotten` the next is acknowledged, and its points never come. Points of equal scores
    come in no order that means anything. `waited` says of each upsert whether it was waited for; `aliases`
    {alias: name}.
    """

    def __init__(self, key=None):
        self.key, self.created, self.indexes, self.points, self.vectors = key, {}, {}, {}, {}
        self.calls, self.failures, self.lost, self.forgotten = [], [], [], []
        self.late, self.journal, self.order, self.waited = False, [], threading.Lock(), []
        self.aliases = {}

    def called(self, name, context):
        self.calls.append(name)
        if self.key and ("api-key", self.key) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")
        if self.failures:
            failure = self.failures.pop(0)
            context.abort(*(failure if isinstance(failure, tuple) else (failure, "by the test")))

    def answered(self, name, context):
        if name in self.lost:
            self.lost.remove(name)
            context.abort(grpc.StatusCode.UNAVAILABLE, "the answer is lost")

    def ListAliases(self, request, context):
        self.called("aliases", context)
        found = [q.AliasDescription(alias_name=a, collection_name=c) for a, c in self.aliases.items()]
        return q.ListAliasesResponse(aliases=found)

    def UpdateAliases(self, request, context):
        self.called("update aliases", context)
        for action in request.actions:
            if action.HasField("create_alias"):
                self.aliases[action.create_alias.alias_name] = action.create_alias.collection_name
            else:
                del self.aliases[action.delete_alias.alias_name]
        return q.CollectionOperationResponse(result=True)

    def kept(self, request, context):
        """The points of the collection that a request names, by its name or an alias."""
        request.collection_name = self.aliases.get(request.collection_name, request.collection_name)
        if request.collection_name not in self.created:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Collection `{request.collection_name}` doesn't exist!")
        return self.points[request.collection_name]

    def List(self, request, context):
        self.called("list", context)
        names = [q.CollectionDescription(name=name) for name in self.created]
        return q.ListCollectionsResponse(collections=names)

    def CollectionExists(self, request, context):
        self.called("exists", context)
        exists = request.collection_name in self.created
        return q.CollectionExistsResponse(result=q.CollectionExists(exists=exists))

    def Create(self, request, context):
        self.called("create", context)
        name = request.collection_name
        if name in self.created:
            context.abort(grpc.StatusCode.ALREADY_EXISTS, f"Collection `{name}` already exists!")
        self.created[name], self.points[name], self.vectors[name] = request, {}, {}
        self.answered("create", context)
        return q.CollectionOperationResponse(result=True)

    def Get(self, request, context):
        """Both services have a `Get`: of a collection, and of points."""
        if isinstance(request, q.GetPoints):
            return self.retrieve(request, context)
        self.called("get", context)
        self.kept(request, context)
        name = request.collection_name
        info = collection_info(self.created[name], self.indexes.get(name, {}))
        return q.GetCollectionInfoResponse(result=info)

    def CreateFieldIndex(self, request, context):
        self.called("index", context)
        kinds = {"forms": q.PayloadSchemaType.Text, "draw": q.PayloadSchemaType.Integer}
        self.kept(request, context)
        found = self.indexes.setdefault(request.collection_name, {})
        found[request.field_name] = kinds.get(request.field_name, q.PayloadSchemaType.Keyword)
        self.answered("index", context)
        return done()

    def Upsert(self, request, context):
        self.called("upsert", context)
        self.kept(request, context)
        found = {point.id.num: named_vectors(point.vectors) for point in request.points}
        for vectors in found.values():
            if any(isinstance(v, list) and len({i for i, _ in v}) < len(v) for v in vectors.values()):
                context.abort(grpc.StatusCode.INVALID_ARGUMENT,
                              "Validation error in body: [points[0].vector.sparse.indices: must be unique]")
        with self.order:
            self.waited.append(request.wait)
            if "upsert" in self.forgotten:
                self.forgotten.remove("upsert")
            else:
                self.journal.append((request, found))
            if request.wait or not self.late:
                self.apply()
        self.answered("upsert", context)
        return done()

    def apply(self):
        """Make the changes that the journal holds, in order."""
        for request, found in self.journal:
            name = request.collection_name
            self.points[name].update({point.id.num: dict(point.payload) for point in request.points})
            self.vectors[name].update(found)
        self.journal.clear()

    def Delete(self, request, context):
        """Both services have a `Delete`: of a collection, and of points."""
        self.called("delete", context)
        points = self.kept(request, context)
        if isinstance(request, q.DeletePoints):
            for i in selected(request.points, points):
                points.pop(i, None)
                self.vectors[request.collection_name].pop(i, None)
            return done()
        for table in (self.created, self.points, self.vectors):
            del table[request.collection_name]
        self.indexes.pop(request.collection_name, None)
        return q.CollectionOperationResponse(result=True)

    def SetPayload(self, request, context):
        self.called("set payload", context)
        points = self.kept(request, context)
        for i in selected(request.points_selector, points):
            points[i] = {**points[i], **request.payload}
        return done()

    def Count(self, request, context):
        self.called("count", context)
        points = self.kept(request, context)
        found = found_by(request.filter, points)
        return q.CountResponse(result=q.CountResult(count=len(found)))

    def retrieve(self, request, context):
        self.called("retrieve", context)
        points, vectors = self.kept(request, context), self.vectors[request.collection_name]
        there = [i.num for i in request.ids if i.num in points]
        return q.GetResponse(result=[q.RetrievedPoint(
            id=q.PointId(num=i), payload=points[i], vectors=vectors_out(vectors[i])) for i in there])

    def Scroll(self, request, context):
        self.called("scroll", context)
        points, key = self.kept(request, context), request.order_by.key
        found = found_by(request.filter, points)
        found.sort(key=lambda i: (points[i][key].integer_value if key else 0, i))
        found = [i for i in found if i >= request.offset.num]
        fields = set(request.with_payload.include.fields)
        payloads = {i: {f: v for f, v in points[i].items() if f in fields} for i in found[: request.limit]}
        answer = q.ScrollResponse(result=[q.RetrievedPoint(id=q.PointId(num=i), payload=payload)
                                          for i, payload in payloads.items()])
        if len(found) > request.limit and not key:
            answer.next_page_offset.num = found[request.limit]
        return answer

    def Query(self, request, context):
        self.called("query", context)
        return q.QueryResponse(result=self.search(request, context))

    def QueryBatch(self, request, context):
        self.called("query batch", context)
        found = [self.search(part, context) for part in request.query_points]
        return q.QueryBatchResponse(result=[q.BatchResult(result=some) for some in found])

    def search(self, request, context):
        """What one query finds."""
        points, vectors = self.kept(request, context), self.vectors[request.collection_name]
        if request.query.HasField("order_by"):
            return by_field(request, points)
        if request.query.HasField("fusion"):
            lists = [nearest(part, points, vectors) for part in request.prefetch]
            scores = {}
            for ranked in lists:
                for rank, (i, _) in enumerate(ranked):
                    scores[i] = scores.get(i, 0) + 1 / (rank + 2)
            found = sorted(scores.items(), key=lambda pair: (-pair[1], turn(pair[0])))[: request.limit]
        else:
            found = nearest(request, points, vectors)
        return [q.ScoredPoint(id=q.PointId(num=i), payload=points[i], score=score) for i, score in found]


def by_field(request, points):
    """The points that pass a query's filter, ordered by a whole number of their payload."""
    key = request.query.order_by.key
    found = sorted((points[i][key].integer_value, i) for i in found_by(request.filter, points))
    return [q.ScoredPoint(id=q.PointId(num=i), score=0, order_value=q.OrderValue(int=value))
            for value, i in found[: request.limit]]


def collection_info(asked, indexes):
    """What the server says of a collection that was made by the request `asked`."""
    kept = ("vectors_config", "sparse_vectors_config", "shard_number", "replication_factor")
    shape = {name: getattr(asked, name) for name in kept}
    params = q.CollectionParams(**shape, on_disk_payload=asked.on_disk_payload)
    hnsw = q.HnswConfigDiff(m=asked.hnsw_config.m, ef_construct=100, full_scan_threshold=10_000)
    optimizer = q.OptimizersConfigDiff(deleted_threshold=0.2, vacuum_min_vector_number=1000,
                                       default_segment_number=0, flush_interval_sec=5)
    wal = q.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0)
    config = q.CollectionConfig(params=params, hnsw_config=hnsw, optimizer_config=optimizer, wal_config=wal)
    schema = {field: q.PayloadSchemaInfo(data_type=kind) for field, kind in indexes.items()}
    state = {"status": q.CollectionStatus.Green, "optimizer_status": q.OptimizerStatus(ok=True)}
    return q.CollectionInfo(**state, config=config, payload_schema=schema)


def named_vectors(given):
    """{name: dense vector as an array, or sparse as a list of (index, value)} of a point's vectors."""
    found = {}
    named = given.vectors.vectors if given.WhichOneof("vectors_options") == "vectors" else {}
    for name, v in named.items():
        if v.WhichOneof("vector") == "sparse":
            found[name] = list(zip(v.sparse.indices, v.sparse.values))
        elif v.HasField("indices"):
            found[name] = list(zip(v.indices.data, v.data))
        else:
            found[name] = np.array(v.dense.data or v.data)
    return found


def vectors_out(vectors):
    """A point's sparse vectors, as the server gives them."""
    some = {name: q.VectorOutput(sparse=q.SparseVector(indices=[i for i, _ in v], values=[x for _, x in v]))
            for name, v in vectors.items() if isinstance(v, list)}
    return q.VectorsOutput(vectors=q.NamedVectorsOutput(vectors=some))


def found_by(wanted, points):
    """The ids of the points that pass a filter, in the order in which they came."""
    rest, among = q.Filter(), list(points)
    rest.CopyFrom(wanted)
    del rest.must[:]
    for condition in wanted.must:
        if condition.HasField("has_id"):
            numbers = {i.num for i in condition.has_id.has_id}
            among = [i for i in among if i in numbers]
        else:
            rest.must.append(condition)
    return [i for i in among if matches(rest, points[i])]


def condition_holds(condition, payload):
    """Whether a payload meets a condition: a keyword, any of some words, or an empty field."""
    field = condition.field
    value = payload.get(field.key)
    if field.HasField("is_empty"):
        return field.is_empty == (value is None or value.WhichOneof("kind") == "null_value")
    if field.match.WhichOneof("match_value") == "text_any":
        return bool(value and set(field.match.text_any.split()) & set(value.string_value.split()))
    return value is not None and value.string_value == field.match.keyword


def matches(wanted, payload):
    """Whether a payload passes a filter."""
    return (all(condition_holds(c, payload) for c in wanted.must)
            and not any(condition_holds(c, payload) for c in wanted.must_not)
            and (not wanted.should or any(condition_holds(c, payload) for c in wanted.should)))


def selected(selector, points):
    """The ids that a selector means."""
    if selector.WhichOneof("points_selector_one_of") == "filter":
        return found_by(selector.filter, points)
    return [i.num for i in selector.points.ids]


def turn(number):
    """Where a point comes among equals: as if it lay anywhere in a segment."""
    return number * 2654435761 % 2**32


def nearest(request, points, vectors):
    """[(id, score)] of the points nearest by one vector, best first; sparse with IDF."""
    asked, using = request.query.nearest, request.using
    having = {i: v[using] for i, v in vectors.items() if using in v}
    if asked.WhichOneof("variant") == "sparse":
        query = dict(zip(asked.sparse.indices, asked.sparse.values))
        df = {index: sum(any(j == index for j, _ in v) for v in having.values()) for index in query}
        weight = {index: x * math.log((len(having) - df[index] + 0.5) / (df[index] + 0.5) + 1)
                  for index, x in query.items()}
        scores = {i: sum(weight[j] * x for j, x in v if j in weight) for i, v in having.items()
                  if any(j in weight for j, _ in v)}
    else:
        mine, length = np.array(asked.dense.data), np.linalg.norm
        scores = {i: float(v @ mine / max(length(v) * length(mine), 1e-9)) for i, v in having.items()}
    passing = set(found_by(request.filter, points))
    kept = [(i, score) for i, score in scores.items() if i in passing]
    return sorted(kept, key=lambda pair: (-pair[1], turn(pair[0])))[: request.limit]


def done():
    """The answer to a change."""
    return q.PointsOperationResponse(result=q.UpdateResult(operation_id=1, status=q.UpdateStatus.Completed))


@contextlib.contextmanager
def serving(fake):
    """Serve on a free port of this machine; yields the URL whose gRPC port, the next one, it listens on."""
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

    It passes bytes on, `delay` seconds late, and cuts a connection after a random number of bytes up to
    `cut`, so that a call, or its answer, is lost half-way.
    `away` refuses everybody, `silent` passes on no answer.
    """

    def __init__(self, url, delay=0.0, cut=0, seed=0):
        self.target = ("127.0.0.1", int(url.rpartition(":")[2]) + 1)
        self.delay, self.cut, self.rng = delay, cut, random.Random(seed)
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
                for both in ((client, server, left, False), (server, client, left, True)):
                    threading.Thread(target=self.pass_on, args=both, daemon=True).start()

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


@contextlib.contextmanager
def nobody():
    """The address of a server that is not there.

    Its port and the next one are held meanwhile, so nobody else can begin to listen on them.
    """
    with contextlib.ExitStack() as held:
        while True:
            one, two = (held.enter_context(socket.socket()) for _ in range(2))
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            with contextlib.suppress(OSError, OverflowError):
                two.bind(("127.0.0.1", port + 1))
                break
        yield f"http://127.0.0.1:{port}"
