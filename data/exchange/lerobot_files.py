"""The Parquet files of a LeRobotDataset v3.0, written whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from takeover.data.exchange.lerobot_schema import Feature
from takeover.data.exchange.target import write_with


def arrow_type(feature: Feature) -> pa.DataType:
    """Of a column; a picture is struct{bytes, path}."""
    if feature.dtype == "image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    scalar = {"bool": pa.bool_(), "string": pa.string()}.get(feature.dtype) or pa.from_numpy_dtype(np.dtype(feature.dtype))
    return scalar if feature.shape == (1,) else pa.list_(scalar, feature.shape[0])


def schema_of(features: Mapping[str, Feature]) -> pa.Schema:
    """Video features have no column."""
    return pa.schema([(name, arrow_type(feature)) for name, feature in features.items() if feature.dtype != "video"])


def table_of(columns: Mapping[str, np.ndarray | list[bytes]], features: Mapping[str, Feature]) -> pa.Table:
    """A table with a row per frame. Pictures come as lists of PNG or JPEG bytes."""
    arrays = []
    schema = schema_of(features)
    for entry in schema:
        feature, values = features[entry.name], columns[entry.name]
        if feature.dtype == "image":
            data = pa.array(values, pa.binary())
            arrays.append(pa.StructArray.from_arrays([data, pa.nulls(len(data), pa.string())], ["bytes", "path"]))
        elif feature.shape == (1,):
            arrays.append(pa.array(values, entry.type))
        else:
            flat = pa.array(np.asarray(values).reshape(-1), entry.type.value_type)
            arrays.append(pa.FixedSizeListArray.from_arrays(flat, feature.shape[0]))
    return pa.Table.from_arrays(arrays, schema=schema)


def write_tables(path: Path, tables: Sequence[pa.Table]) -> None:
    """One Parquet file, a row group per table. Snappy, but for bytes, which are pictures and compressed already; pages have checksums."""
    compression: dict[str, str] = {}
    for field in tables[0].schema:
        inner = [f"{field.name}.{part.name}" for part in field.type] if pa.types.is_struct(field.type) else [_leaf(field)]
        compression |= {name: "NONE" if name.endswith(".bytes") else "SNAPPY" for name in inner}

    def write(temporary: Path) -> None:
        options = {"compression": compression, "use_dictionary": False, "write_page_checksum": True}
        with pq.ParquetWriter(temporary, tables[0].schema, **options) as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, len(table)))

    write_with(path, write)


def _leaf(field: pa.Field) -> str:
    """The path of a column's values in Parquet's own schema."""
    path, kind = field.name, field.type
    while pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind):
        path, kind = f"{path}.list.element", kind.value_type
    return str(path)


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """meta/tasks.parquet: what pandas writes of a frame with the task's text as index and a column ``task_index``."""
    index = "__index_level_0__"
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), index: pa.array(list(tasks), pa.string())})
    pandas = {
        "index_columns": [index],
        "column_indexes": [
            {"name": None, "field_name": None, "pandas_type": "unicode", "numpy_type": "object", "metadata": {"encoding": "UTF-8"}}
        ],
        "columns": [
            {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64", "metadata": None},
            {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object", "metadata": None},
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.2.0",
    }
    write_tables(path, [table.replace_schema_metadata({"pandas": json.dumps(pandas)})])


def write_episodes(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """meta/episodes: row i is episode i."""
    names = list(rows[0])
    write_tables(path, [pa.table({name: pa.array([row[name] for row in rows]) for name in names})])
