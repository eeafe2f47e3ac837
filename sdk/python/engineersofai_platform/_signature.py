"""Describes example inputs: columns, types and shapes, without importing what made them."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Rows of an example that are kept.
SAMPLE_ROWS = 5


def describe(value: Any) -> dict[str, Any]:
    """Columns of tables, type and shape of arrays, fields of mappings; the first axis is left open."""
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        columns = [{"name": str(name), "dtype": str(value[name].dtype)} for name in value.columns]
        return {"kind": "table", "columns": columns}
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        shape = [int(size) if size is not None else -1 for size in value.shape]
        if shape:
            shape[0] = -1
        return {"kind": "tensor", "dtype": str(value.dtype).replace("torch.", ""), "shape": shape}
    if hasattr(value, "items"):
        return {"kind": "mapping", "fields": {str(key): describe(field) for key, field in value.items()}}
    if isinstance(value, (list, tuple)):
        return {"kind": "list", "items": describe(value[0]) if value else None}
    return {"kind": "scalar", "dtype": type(value).__name__}


def sample(value: Any) -> Any:
    """The first rows of an example as JSON values."""
    if hasattr(value, "columns") and hasattr(value, "dtypes"):
        head = value[:SAMPLE_ROWS]
        return {
            "columns": [str(name) for name in value.columns],
            "rows": plain([list(row) for row in head.itertuples(index=False)])
            if hasattr(head, "itertuples")
            else plain(head.to_numpy()),
        }
    if getattr(value, "shape", None):
        return plain(value[:SAMPLE_ROWS])
    if isinstance(value, (list, tuple)):
        return plain(list(value[:SAMPLE_ROWS]))
    return plain(value)


def plain(value: Any) -> Any:
    """A JSON value: arrays as lists, numbers that JSON has no word for as text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, float):
        return float(value) if value - value == 0.0 else str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, dict):
        return {str(key): plain(field) for key, field in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [plain(item) for item in value]
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    if hasattr(value, "numpy") and not hasattr(value, "tolist"):
        value = value.numpy()
    if hasattr(value, "tolist"):
        listed = value.tolist()
        return plain(listed) if not hasattr(listed, "tolist") else str(listed)
    if hasattr(value, "items"):
        return {str(key): plain(field) for key, field in value.items()}
    return str(value)
