"""miniCOIL: tiny per-word meaning vectors for keyword search.

Names are loaded where they are used, so importing is light."""
import os as _os

__version__ = "0.1.0"

# Before any library is imported, here and in the kernels and workers that inherit it: no telemetry.
for _name in ("ORT_DISABLE_TELEMETRY", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
    _os.environ.setdefault(_name, "1")

_HOMES = {
    "MiniCOIL": "serving.serving",
    "SparseEmbedding": "serving.sparse",
    "load_sparse_encoder": "serving.sparse_encoder",
    "UserError": "runs.files",
}
__all__ = list(_HOMES)


def __getattr__(name):
    if name in _HOMES:
        from importlib import import_module
        return getattr(import_module(f"minicoil.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'minicoil' has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
