"""A foreign HDF5 file, looked at before anything of it is read: no links out of it, no storage elsewhere, no filter we do not know."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from takeover.data.exchange.errors import ExchangeError

FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
MAX_DATASET_BYTES = 4 * 1024**3
MAX_DEPTH = 12
MAX_OBJECTS = 5_000_000


@contextmanager
def open_foreign(path: Path) -> Iterator[h5py.File]:
    """The file, every object in it checked. Raises `ExchangeError` naming the file and the key."""
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise ExchangeError(f"{path} does not exist") from None
    except OSError as error:
        raise ExchangeError(f"{path}: no HDF5 file that can be read: {error}") from error
    with file:
        with reading(path):
            _check_group(file, path, 0, set())
        yield file


@contextmanager
def reading(where: Path | str) -> Iterator[None]:
    """Around everything that reads: what h5py raises for damage becomes an `ExchangeError` that begins with ``where``."""
    try:
        yield
    except ExchangeError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise ExchangeError(f"{where}: {error}; the file is damaged") from error


def _check_group(group: h5py.Group, path: Path, depth: int, seen: set[tuple[int, int]]) -> None:
    if depth > MAX_DEPTH or len(seen) > MAX_OBJECTS:
        raise ExchangeError(f"{path}, {group.name}: nested too deeply, or too many objects")
    for name in group:
        key = f"{group.name.rstrip('/')}/{name}"
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.ExternalLink):
            raise ExchangeError(f"{path}, {key}: a link to another file ({link.filename}); make the file self-contained, then import it")
        if not isinstance(link, h5py.HardLink):
            raise ExchangeError(f"{path}, {key}: a soft link; make the file self-contained, then import it")
        item = group[name]
        info = h5py.h5o.get_info(item.id)
        address = (info.fileno, info.addr)
        if address in seen:
            raise ExchangeError(f"{path}, {key}: the same object under two names")
        seen.add(address)
        if isinstance(item, h5py.Group):
            _check_group(item, path, depth + 1, seen)
        elif isinstance(item, h5py.Dataset):
            _check_dataset(item, path, key)
        else:
            raise ExchangeError(f"{path}, {key}: a named type; only groups and datasets are read")


def _check_dataset(item: h5py.Dataset, path: Path, key: str) -> None:
    if item.external:
        raise ExchangeError(f"{path}, {key}: its data are in another file; make the file self-contained, then import it")
    if item.is_virtual:
        raise ExchangeError(f"{path}, {key}: a virtual dataset; make the file self-contained, then import it")
    if item.dtype.kind not in "biufS" or item.dtype.hasobject:
        raise ExchangeError(f"{path}, {key}: type {item.dtype} is not read; numbers and fixed-length texts are")
    size = item.dtype.itemsize * int(np.prod(item.shape, dtype=object)) if item.shape else item.dtype.itemsize
    if size > MAX_DATASET_BYTES:
        raise ExchangeError(f"{path}, {key}: {size / 1024**3:.0f} GiB in one dataset; 4 are the most")
    creation = item.id.get_create_plist()
    for index in range(creation.get_nfilters()):
        code = creation.get_filter(index)[0]
        if code not in FILTERS:
            known = ", ".join(FILTERS.values())
            raise ExchangeError(f"{path}, {key}: stored with the unknown filter {code}; known: {known}. Repack the file with one of those")
