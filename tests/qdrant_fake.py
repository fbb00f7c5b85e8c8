"""A stand-in for a Qdrant server: speaks its gRPC, keeps points in memory, can fail on demand. It knows just the calls that the store makes."""
import contextlib
import socket
from concurrent.futures import ThreadPoolExecutor

import grpc
from qdrant_client import grpc as q


class FakeQdrant(q.CollectionsServicer, q.PointsServicer):
    """What was asked: `created` {collection: request}, `indexes`, `points` {collection: {id: payload}}, `calls`; `failures` are given to the next calls."""

    def __init__(self, key=None):
        self.key, self.created, self.indexes, self.points, self.calls, self.failures = key, {}, {}, {}, [], []

    def called(self, name, context):
        self.calls.append(name)
        if self.key and ("api-key", self.key) not in context.invocation_metadata():
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Must provide an API key")
        if self.failures:
            context.abort(self.failures.pop(0), "by the test")

    def List(self, request, context):
        self.called("list", context)
        return q.ListCollectionsResponse(collections=[q.CollectionDescription(name=name) for name in self.created])

    def CollectionExists(self, request, context):
        self.called("exists", context)
        return q.CollectionExistsResponse(result=q.CollectionExists(exists=request.collection_name in self.created))

    def Create(self, request, context):
        self.called("create", context)
        self.created[request.collection_name], self.points[request.collection_name] = request, {}
        return q.CollectionOperationResponse(result=True)

    def Get(self, request, context):
        self.called("get", context)
        asked = self.created[request.collection_name]
        params = q.CollectionParams(vectors_config=asked.vectors_config, shard_number=asked.shard_number, on_disk_payload=asked.on_disk_payload)
        hnsw = q.HnswConfigDiff(m=asked.hnsw_config.m, ef_construct=100, full_scan_threshold=10_000)
        optimizer = q.OptimizersConfigDiff(deleted_threshold=0.2, vacuum_min_vector_number=1000, default_segment_number=0, flush_interval_sec=5)
        config = q.CollectionConfig(params=params, hnsw_config=hnsw, optimizer_config=optimizer, wal_config=q.WalConfigDiff(wal_capacity_mb=32, wal_segments_ahead=0))
        schema = {field: q.PayloadSchemaInfo(data_type=kind) for field, kind in self.indexes.items()}
        return q.GetCollectionInfoResponse(result=q.CollectionInfo(status=q.CollectionStatus.Green, optimizer_status=q.OptimizerStatus(ok=True), config=config, payload_schema=schema))

    def CreateFieldIndex(self, request, context):
        self.called("index", context)
        self.indexes[request.field_name] = {"forms": q.PayloadSchemaType.Text, "draw": q.PayloadSchemaType.Integer}[request.field_name]
        return done()

    def Upsert(self, request, context):
        self.called("upsert", context)
        for point in request.points:
            self.points[request.collection_name][point.id.num] = point.payload
        return done()

    def Count(self, request, context):
        self.called("count", context)
        return q.CountResponse(result=q.CountResult(count=len(self.points[request.collection_name])))

    def Scroll(self, request, context):
        self.called("scroll", context)
        wanted = set(request.filter.must[0].field.match.text_any.split())
        found = [(p["draw"].integer_value, i) for i, p in self.points[request.collection_name].items() if wanted & set(p["forms"].string_value.split())]
        draw = lambda key: {"draw": q.Value(integer_value=key)}
        return q.ScrollResponse(result=[q.RetrievedPoint(id=q.PointId(num=i), payload=draw(key)) for key, i in sorted(found)[: request.limit]])


def done():
    """The answer to a change."""
    return q.PointsOperationResponse(result=q.UpdateResult(operation_id=1, status=q.UpdateStatus.Completed))


@contextlib.contextmanager
def serving(fake):
    """Serve on a free port of this machine; yields the URL that the store is given, whose gRPC port is the next one."""
    server = grpc.server(ThreadPoolExecutor(4))
    q.add_CollectionsServicer_to_server(fake, server)
    q.add_PointsServicer_to_server(fake, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port - 1}"
    finally:
        server.stop(0).wait()


def free_port():
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
