"""HDF5 built in memory and sealed: low-level helpers. HDF5 never writes to the disk itself.

A failed write makes h5py raise and later crash the process, and a file that is open when the process dies is lost whole; so a file
is built with the core driver, taken out as bytes, sealed with a SHA-256 of everything in a 512-byte user block, and written by us.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5f, h5p, h5s, h5t

from takeover.data.workspace import fsync_folder

USER_BLOCK_BYTES = 512
_SEAL = b"takeover-episode sha256 "
_DIGEST = slice(len(_SEAL), len(_SEAL) + 64)
_TARGET_CHUNK_BYTES = 256 * 1024


class DamagedFile(ValueError):
    """A file is not what was written: checksum, structure or counts do not match."""


class ImageBuilder:
    """An HDF5 file in memory. `group` and `put` add to it; `finish` returns its sealed bytes."""

    def __init__(self) -> None:
        access = h5p.create(h5p.FILE_ACCESS)
        # 1.10's format: compact chunk indexes and checksummed metadata, readable by every HDF5 since 2016
        access.set_libver_bounds(h5f.LIBVER_V110, h5f.LIBVER_V110)
        access.set_fapl_core(1 << 20, False)
        creation = h5p.create(h5p.FILE_CREATE)
        creation.set_userblock(USER_BLOCK_BYTES)
        self._file = h5f.create(f"episode-{id(self):x}.hdf5".encode(), h5f.ACC_TRUNC, creation, access)
        self.root = h5py.File(self._file)
        self._types: dict[np.dtype, h5t.TypeID] = {}

    def type_of(self, dtype: np.dtype) -> h5t.TypeID:
        """HDF5 type of a numpy one, made once."""
        made = self._types.get(dtype)
        if made is None:
            made = self._types[dtype] = h5t.py_create(dtype, logical=True)
        return made

    def put(self, group: h5py.Group, name: str, array: np.ndarray, chunk: tuple[int, ...] | None = None, lzf: bool = False) -> None:
        """Add a dataset with ``fletcher32`` checksums. Empty ones are stored without chunks, as HDF5 wants."""
        array = np.ascontiguousarray(array)
        kind = self.type_of(array.dtype)
        creation = h5p.create(h5p.DATASET_CREATE)
        if array.size:
            creation.set_chunk(chunk or chunk_shape(array.shape, array.itemsize))
            if lzf:
                creation.set_filter(h5py.h5z.FILTER_LZF, h5py.h5z.FLAG_OPTIONAL)
            creation.set_fletcher32()
        dataset = h5d.create(group.id, name.encode(), kind, h5s.create_simple(array.shape), creation)
        if array.size:
            # strings of any length are Python's in memory and HDF5's in the file
            dataset.write(h5s.ALL, h5s.ALL, array, h5t.py_create(array.dtype) if array.dtype.hasobject else kind)

    def put_view(self, group: h5py.Group, name: str, source: str, rows: Sequence[tuple[int, int, int]], count: int) -> None:
        """Add a virtual dataset of ``count`` rows over dataset ``source`` of this file. ``rows``: (first row here, first there, n)."""
        stored = self.root[source]
        tail = stored.shape[1:]
        zeros = (0,) * len(tail)
        creation = h5p.create(h5p.DATASET_CREATE)
        for here, there, n in rows:
            target = h5s.create_simple((count, *tail))
            target.select_hyperslab((here, *zeros), (n, *tail))
            origin = h5s.create_simple(stored.shape)
            origin.select_hyperslab((there, *zeros), (n, *tail))
            creation.set_virtual(target, b".", source.encode(), origin)
        h5d.create(group.id, name.encode(), self.type_of(stored.dtype), h5s.create_simple((count, *tail)), creation)

    def abandon(self) -> None:
        """Let go of a file that cannot be finished: another one could not be made while it is open."""
        self.root.close()

    def finish(self) -> bytes:
        """The file's bytes with the user block in front. The builder is closed."""
        self.root.flush()
        image = self._file.get_file_image()
        self._file.close()
        return seal(image)


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Whole rows, about 256 KiB; small arrays are one chunk."""
    row_bytes = itemsize * int(np.prod(shape[1:], dtype=np.int64))
    rows = max(1, min(shape[0], _TARGET_CHUNK_BYTES // max(1, row_bytes)))
    return (rows, *shape[1:])


def _block(digest: str) -> bytes:
    return (_SEAL + digest.encode() + b"\n").ljust(USER_BLOCK_BYTES, b"\0")


def seal(image: bytes) -> bytes:
    """``image`` behind a user block with the SHA-256 of the whole, its own field counted as zeros."""
    digest = hashlib.sha256(_block("0" * 64))
    digest.update(image)
    return _block(digest.hexdigest()) + image


def sealed_digest(block: bytes) -> str:
    """The SHA-256 noted in a user block. Raises `DamagedFile`."""
    digest = block[_DIGEST].decode("ascii", "replace")
    if len(block) < USER_BLOCK_BYTES or block[:USER_BLOCK_BYTES] != _block(digest):
        raise DamagedFile("the first 512 bytes are not those of an episode file")
    return digest


def check_seal(path: Path) -> str:
    """Compare a file with its seal; returns the SHA-256. Raises `DamagedFile`, `OSError`."""
    with path.open("rb") as stream:
        try:
            noted = sealed_digest(stream.read(USER_BLOCK_BYTES))
        except DamagedFile as error:
            raise DamagedFile(f"{path}: {error}") from None
        digest = hashlib.sha256(_block("0" * 64))
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != noted:
        raise DamagedFile(f"{path}: SHA-256 is {digest.hexdigest()[:12]}..., noted is {noted[:12]}...: the file was changed or cut off")
    return noted


def write_durably(path: Path, data: bytes) -> None:
    """Write a temporary file, fsync, rename to ``path``, fsync the folder. On `OSError` nothing is left behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)
