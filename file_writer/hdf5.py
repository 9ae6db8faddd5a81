"""Layout and rows to HDF5. The only place of the file writer that knows h5py.

`LiveFile` is the file that grows: everything in it is made first, with types of fixed length; `start` puts it
into SWMR mode, and from then on only rows are added. (HDF5 does not refuse a group or an attribute made
later, it corrupts the file or hangs when it is closed; so `LiveFile` refuses it itself.) `complete` turns the
closed live file into the final one, `WholeFiles` writes a final one directly.

h5py's low-level calls are used: a dataset made by its high-level ones costs three times as much, and a scan
of 300 signals has 600.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5p, h5s, h5t

from bec_lib.errors import StorageError
from file_writer.layout import Column, ExternalLink, Field, Group, Link, Value, walk
from file_writer.rows import as_rows

Compression = Literal["none", "lz4", "gzip"]

# Rows of a scalar in a chunk if the number of points is not known, at least, and at most.
DEFAULT_ROWS = 512
MIN_ROWS, MAX_ROWS = 16, 8192
# Of arrays, so many bytes in a chunk, if one row is not larger.
CHUNK_BYTES = 256 * 1024
# What fits into an object header stands there ("compact"); HDF5's own limit is 64 kB for the whole header.
COMPACT_BYTES = 32 * 1024
# Arrays shorter than this gain nothing by compression.
COMPRESSED_BYTES = 4096
# The length of a text is kept in multiples of this.
TEXT_STEP = 32

_SCALAR = h5s.create(h5s.SCALAR)
_TEXT = h5py.string_dtype()
_TEXT_FILE_TYPE, _TEXT_MEMORY_TYPE = h5t.py_create(_TEXT, logical=True), h5t.py_create(_TEXT)
_LIBVER = (h5f.LIBVER_V110, h5f.LIBVER_V110)


@contextlib.contextmanager
def told_as_storage_error(what: str, path: Path) -> Iterator[None]:
    """HDF5's and the system's errors in words. Raises StorageError that names the file and the reason."""
    try:
        yield
    except StorageError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{what} {path} failed: {_reason(error)}", details=str(error)) from error


@dataclass(slots=True)
class _Growing:
    """A dataset that takes rows. dtype: of the rows handed to HDF5. dataset: None until it is opened."""

    place: bytes
    kind: Any
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    column: Column
    dataset: Any = None


@dataclass(frozen=True, slots=True)
class _Template:
    """The bytes of a file without data, and the tree that it was made from. offsets: where the rows of its
    growing fields stand, in the tree's order; empty for a file that grows.
    """

    image: bytes
    root: Group
    offsets: tuple[int, ...] = ()


class Templates:
    """Files without data, by their layout. A scan that differs from an earlier one only in texts and numbers
    gets a copy of its file: to make the objects anew takes ten times as long (300 signals: 90 ms).
    """

    def __init__(self, keep_bytes: int = 16 * 1024 * 1024):
        self._keep_bytes = keep_bytes
        self._found: dict[str, _Template] = {}

    def find(self, key: str) -> _Template | None:
        found = self._found.pop(key, None)
        if found is not None:
            self._found[key] = found  # the last used one is the last to go
        return found

    def remember(self, key: str, template: _Template) -> None:
        if len(template.image) > self._keep_bytes:
            return
        self._found[key] = template
        while sum(len(item.image) for item in self._found.values()) > self._keep_bytes:
            del self._found[next(iter(self._found))]


class LiveFile:
    """A file that grows by rows.

    Made by `LiveFile(path, root, ...)` with the whole tree in it; then `fill` for scalars, `start`, `append`,
    `flush`, `close`.
    expected: number of points announced, None if unknown. All raise StorageError.
    """

    def __init__(
        self,
        path: Path,
        root: Group,
        *,
        expected: int | None = None,
        compression: Compression = "none",
        templates: Templates | None = None,
    ):
        self.path = path
        self.rows = 0
        self._growth = _Growth(_rows_per_chunk(expected), compression)
        self._growing: list[_Growing] = []
        self._scalars: dict[Column, list[tuple[bytes, Field]]] = {}
        self.skeleton = ""
        self._started = False
        self._file: Any = None
        try:
            with told_as_storage_error("creating", path):
                self._note_columns(root)
                self.skeleton = _skeleton(root)
                if templates is None:
                    self._file = _create(path)
                    self.build(root)
                else:
                    self._from_template(root, templates)
        except StorageError:
            self.discard()
            raise

    @property
    def is_started(self) -> bool:
        return self._started

    @property
    def columns(self) -> list[tuple[Column, np.dtype[Any], tuple[int, ...]]]:
        """The columns that take rows, with the type and shape of one, in the order of `append`."""
        return [(item.column, item.dtype, item.shape) for item in self._growing]

    def build(self, root: Group) -> None:
        """Make the tree. Raises StorageError once the file has been put into SWMR mode."""
        if self._started:
            raise StorageError(
                f"{self.path} is being written in SWMR mode: nothing can be added to it but rows"
            )
        _build(self._file, root, self._growth)

    def fill(self, values: Mapping[Column, Any]) -> None:
        """Set scalars that belong to columns (the baseline); None leaves the fill value."""
        if self._started:
            raise StorageError(f"{self.path} is being written in SWMR mode: scalars are set before or after")
        with told_as_storage_error("writing", self.path):
            for column, value in values.items():
                for place, item in self._scalars.get(column, ()):
                    _write_scalar(h5d.open(self._file, place), item, value)

    def start(self) -> None:
        """Put the file into SWMR mode: from now on others can read it."""
        with told_as_storage_error("starting SWMR mode of", self.path):
            self._file.start_swmr_write()
            self._started = True

    def append(self, rows: Sequence[np.ndarray]) -> None:
        """Add rows: one array for each of `columns`, all with the same first dimension."""
        if not rows or not len(rows[0]):
            return
        count, first = len(rows[0]), self.rows
        spaces: dict[tuple[int, ...], tuple[Any, Any]] = {}
        with told_as_storage_error("writing", self.path):
            for item, data in zip(self._growing, rows, strict=True):
                if item.dataset is None:
                    # Not before: HDF5 takes its time to begin SWMR mode if many datasets are open.
                    item.dataset = h5d.open(self._file, item.place)
                found = spaces.get(item.shape)
                if found is None:
                    memory = h5s.create_simple((count, *item.shape))
                    target = h5s.create_simple((first + count, *item.shape))
                    target.select_hyperslab((first, *(0 for _ in item.shape)), (count, *item.shape))
                    found = spaces[item.shape] = (memory, target)
                item.dataset.set_extent((first + count, *item.shape))
                item.dataset.write(*found, data, item.kind)
            self.rows = first + count

    def flush(self) -> None:
        """What was appended can be read by others and survives the end of this process."""
        with told_as_storage_error("flushing", self.path):
            h5f.flush(self._file)

    def close(self) -> None:
        """Close it; a second time does nothing."""
        file, self._file = self._file, None
        if file is None:
            return
        with told_as_storage_error("closing", self.path):
            _close(file, self._release)

    def discard(self) -> None:
        """Let go of a file that may be broken, and remove it if it still has its first name.

        What was flushed can be read: nothing more is written to it.
        """
        file, self._file = self._file, None
        if file is not None:
            with _diverted(file):
                self._release()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _release(self) -> None:
        for item in self._growing:
            item.dataset = None

    def _note_columns(self, root: Group) -> None:
        for place, item in walk(root):
            if not isinstance(item, Field) or item.column is None:
                continue
            if item.grows:
                dtype, kind = _type_of(item)
                self._growing.append(_Growing(place.encode(), kind, dtype, item.shape, item.column))
            else:
                self._scalars.setdefault(item.column, []).append((place.encode(), item))

    def _from_template(self, root: Group, templates: Templates) -> None:
        key = f"{self._growth} {self.skeleton}"
        template = templates.find(key)
        if template is not None:
            _write_new(self.path, template.image)
            self._file = _open(self.path)
            _adapt(self._file, template.root, root)
            return
        self._file = _create(self.path)
        self.build(root)
        _close(self._file)
        templates.remember(key, _Template(self.path.read_bytes(), root))
        self._file = _open(self.path)


class WholeFiles:
    """Final files made in one go, for scans of the same layout and length as an earlier one.

    Their rows are put where they belong in a copy of that one's bytes. To complete a growing file instead
    takes a few dozen microseconds for each dataset: of a scan with 300 signals the half of all the work.
    """

    def __init__(self, keep_bytes: int = 16 * 1024 * 1024):
        self._templates = Templates(keep_bytes)

    def learn(self, path: Path, root: Group, skeleton: str, count: int) -> None:
        """Make the template of such scans, unless there is one. skeleton: of `LiveFile`, of the same tree.

        path: of a temporary file, which is removed. Raises StorageError.
        """
        key = f"{count} {skeleton}"
        if self._templates.find(key) is not None:
            return
        with told_as_storage_error("creating", path):
            file = _create(path)
            try:
                _build(file, root, _Extent(count))
                offsets = tuple(
                    h5d.open(file, place.encode()).get_offset() for place, _ in _growing_fields(root)
                )
            except BaseException:
                with _diverted(file):
                    raise
            else:
                _close(file)
                if all(offset is not None for offset in offsets):
                    template = _Template(path.read_bytes(), root, offsets)
                    self._templates.remember(key, template)
            finally:
                path.unlink(missing_ok=True)

    def write(
        self,
        path: Path,
        root: Group,
        skeleton: str,
        rows: Sequence[np.ndarray],
        values: Mapping[str, Value],
        scalars: Mapping[str, Any],
    ) -> bool:
        """Write a complete file; values and scalars as for `complete`, rows as for `LiveFile.append`.

        False if there is no template for it. Raises StorageError.
        """
        template = self._templates.find(f"{len(rows[0]) if rows else 0} {skeleton}")
        if template is None:
            return False
        image = bytearray(template.image)
        for offset, data in zip(template.offsets, rows, strict=True):
            image[offset : offset + data.nbytes] = data.tobytes()
        with told_as_storage_error("writing", path):
            _write_new(path, image)
            file = _open(path)
            try:
                _adapt(file, template.root, root)
                _complete(file, values, scalars, root)
            except BaseException:
                with _diverted(file):
                    raise
            _close(file)
        return True


def complete(path: Path, values: Mapping[str, Value], scalars: Mapping[str, Any], root: Group) -> None:
    """Add the closing facts to a closed file that nobody else has open. Raises StorageError.

    values: path of a field that was made for the growing file -> value. scalars: path of a baseline field ->
    value. Texts are made anew with variable length, now that nothing grows any more: validators take a time
    of fixed length for no time.
    """
    with told_as_storage_error("completing", path):
        file = _open(path)
        try:
            _complete(file, values, scalars, root)
        except BaseException:
            with _diverted(file):
                raise
        _close(file)


def copy(source: Path, target: Path) -> None:
    """A copy of a closed file. Raises StorageError."""
    with told_as_storage_error("copying to", target):
        shutil.copyfile(source, target)


def sync(path: Path) -> None:
    """Return when the file is on the disk. Raises StorageError."""
    with told_as_storage_error("syncing", path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(path: Path) -> None:
    """Raises StorageError with the reason."""
    with told_as_storage_error("creating the folder", path):
        path.mkdir(parents=True, exist_ok=True)


def place(source: Path, target: Path) -> bool:
    """Rename, unless there is a file of that name: then False. An empty file counts as a reservation.

    Raises StorageError.
    """
    with told_as_storage_error("renaming to", target):
        try:
            os.link(source, target)
        except FileExistsError:
            if target.stat().st_size:
                return False
            os.replace(source, target)
            return True
        except OSError as error:
            # A file system without hard links: the check and the renaming are two steps there.
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            if target.exists() and target.stat().st_size:
                return False
            os.replace(source, target)
            return True
        os.unlink(source)
        return True


def replace(source: Path, target: Path) -> None:
    """Rename over whatever is there; readers that have it open keep it. Raises StorageError."""
    with told_as_storage_error("renaming to", target):
        os.replace(source, target)


def text_in(path: Path, field: str) -> str | None:
    """A text of a file that may have been left behind by a killed writer; None if it cannot be read."""
    for swmr in (True, False):
        try:
            with h5py.File(path, "r", swmr=swmr, locking=False) as file:
                value = file[field][()]
        except (OSError, KeyError, RuntimeError, ValueError):
            continue
        return value.decode() if isinstance(value, bytes) else str(value)
    return None


def _complete(file: Any, values: Mapping[str, Value], scalars: Mapping[str, Any], root: Group) -> None:
    fields = {place: member for place, member in walk(root) if isinstance(member, Field)}
    for place, value in (*values.items(), *scalars.items()):
        item = fields.get(place)
        if item is None:
            continue
        if isinstance(value, str) and item.column is None:
            _replace_text(file, place.encode(), item, value)
        else:
            _write_scalar(h5d.open(file, place.encode()), item, value)


def _write_new(path: Path, data: bytes | bytearray) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with open(descriptor, "wb") as file:
        file.write(data)


def _growing_fields(root: Group) -> list[tuple[str, Field]]:
    return [(place, item) for place, item in walk(root) if isinstance(item, Field) and item.grows]


@dataclass(frozen=True, slots=True)
class _Growth:
    """Growing fields begin with no rows and are stored in chunks of so many rows of a scalar."""

    rows_per_chunk: int
    compression: Compression

    def space(self, shape: tuple[int, ...]) -> Any:
        return h5s.create_simple((0, *shape), (h5s.UNLIMITED, *shape))

    def storage(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        properties = h5p.create(h5p.DATASET_CREATE)
        size = max(1, dtype.itemsize * int(np.prod(shape)))
        rows = self.rows_per_chunk
        if rows * size > CHUNK_BYTES:
            rows = max(1, CHUNK_BYTES // size)
        properties.set_chunk((rows, *(max(1, length) for length in shape)))
        if self.compression != "none" and size >= COMPRESSED_BYTES:
            _compress(properties, self.compression)
        return properties


@dataclass(frozen=True, slots=True)
class _Extent:
    """Growing fields have all their rows from the beginning, one after the other."""

    rows: int

    def space(self, shape: tuple[int, ...]) -> Any:
        return h5s.create_simple((self.rows, *shape))

    def storage(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
        properties = h5p.create(h5p.DATASET_CREATE)
        properties.set_layout(h5d.CONTIGUOUS)
        properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5d.FILL_TIME_NEVER)
        return properties


def _build(file: Any, root: Group, growth: _Growth | _Extent) -> None:
    """Make a tree in an empty file."""
    _write_attributes(file, root.attributes, root.nx_class)
    for member in root.members:
        _make(file, member, growth)


def _make(parent: Any, member: Group | Field | Link | ExternalLink, growth: _Growth | _Extent) -> None:
    name = member.name.encode()
    match member:
        case Group():
            group = h5g.create(parent, name)
            _write_attributes(group, member.attributes, member.nx_class)
            for child in member.members:
                _make(group, child, growth)
        case Link():
            parent.links.create_soft(name, member.target.encode())
        case ExternalLink():
            parent.links.create_external(name, member.file.encode(), member.path.encode())
        case Field():
            _write_attributes(_make_field(parent, name, member, growth), member.attributes)


def _make_field(parent: Any, name: bytes, item: Field, growth: _Growth | _Extent) -> Any:
    if item.column is None and not item.late:
        return _make_static(parent, name, item.value)
    dtype, kind = _type_of(item)
    if item.grows:
        return h5d.create(parent, name, kind, growth.space(item.shape), growth.storage(dtype, item.shape))
    space = h5s.create_simple(item.shape) if item.shape else _SCALAR
    dataset = h5d.create(parent, name, kind, space, _storage(dtype, item.shape))
    if item.column is not None:
        _write_scalar(dataset, item, None)
    return dataset


def _create(path: Path) -> Any:
    return h5f.create(os.fsencode(path), h5f.ACC_EXCL, fapl=_access())


def _open(path: Path) -> Any:
    return h5f.open(os.fsencode(path), h5f.ACC_RDWR, fapl=_access())


def _close(file: Any, release: Callable[[], None] = lambda: None) -> None:
    """Close a file. release: lets go of what is open in it.

    First everything is flushed, while an error of it can still be dealt with: it comes out, and the file is
    closed all the same.
    """
    try:
        h5f.flush(file)
    except BaseException:
        with _diverted(file):
            release()
            raise
    release()
    file.close()


@contextlib.contextmanager
def _diverted(file: Any) -> Iterator[None]:
    """Within this, whatever HDF5 still wants to write into a file goes into memory; the file is closed at its
    end.

    If a write fails while a file is being closed (disk full), HDF5 2.0 ends the whole process by a
    segmentation fault; and it cannot be told to forget a file.
    """
    descriptor = file.get_vfd_handle()
    # HDF5 knows files by their inode. It must not be given to a new file while this one is open for HDF5,
    # which would take the two for one.
    kept = os.dup(descriptor)
    try:
        memory = os.memfd_create("diverted")
        try:
            os.dup2(memory, descriptor, inheritable=False)
        finally:
            os.close(memory)
        try:
            yield
        finally:
            file.close()
    finally:
        os.close(kept)


def _access() -> Any:
    access = h5p.create(h5p.FILE_ACCESS)
    access.set_libver_bounds(*_LIBVER)
    # Some network file systems have no locks; the role's lease keeps a second writer away.
    access.set_file_locking(True, True)
    return access


def _rows_per_chunk(expected: int | None) -> int:
    """A power of two that holds the whole scan if possible; so few different ones that templates are met."""
    wanted = min(max(MIN_ROWS, expected or DEFAULT_ROWS), MAX_ROWS)
    return int(1 << (wanted - 1).bit_length())


def _skeleton(root: Group) -> str:
    """All of a tree but the content of its static fields: equal for files that differ in nothing else."""
    lines = [repr(root.attributes)]
    for place, member in walk(root):
        match member:
            case Group():
                lines.append(f"{place}/{member.nx_class}{member.attributes}")
            case Link():
                lines.append(f"{place}>{member.target}")
            case ExternalLink():
                lines.append(f"{place}>>")
            case Field() if member.column is not None or member.late:
                lines.append(
                    f"{place}={member.dtype}{member.shape}{member.column}{member.length}{member.attributes}"
                )
            case Field():
                data, _ = _stored(member.value)
                lines.append(f"{place}:{data.dtype}{data.shape}{member.attributes}")
    return "\n".join(lines)


def _adapt(file: Any, before: Group, after: Group) -> None:
    """Make a copy of one tree's file into another's with the same skeleton."""
    for (place, old), (_, new) in zip(walk(before), walk(after), strict=True):
        if isinstance(new, ExternalLink) and new != old:
            parent, _, name = place.rpartition("/")
            group = h5g.open(file, parent.encode())
            group.unlink(name.encode())
            group.links.create_external(name.encode(), new.file.encode(), new.path.encode())
        elif isinstance(new, Field) and isinstance(old, Field) and not _same(old.value, new.value):
            data, kind = _stored(new.value)
            dataset = h5d.open(file, place.encode())
            space = dataset.get_space()
            dataset.write(space, space, np.ascontiguousarray(data), kind)


def _same(a: Value | None, b: Value | None) -> bool:
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return a is b
    return a == b and type(a) is type(b)


def _make_static(parent: Any, name: bytes, value: Value | None) -> Any:
    data, kind = _stored(value)
    if data.ndim == 0:
        if data.nbytes <= COMPACT_BYTES:
            dataset = h5d.create(parent, name, kind, _SCALAR, _storage(data.dtype, ()))
            dataset.write(_SCALAR, _SCALAR, data, kind)
            return dataset
        # Too large for an object header; contiguous data cannot be read in SWMR mode by every HDF5.
        data = data.reshape(1)
    space = h5s.create_simple(data.shape)
    dataset = h5d.create(parent, name, kind, space, _storage(data.dtype, data.shape))
    if data.size:
        dataset.write(space, space, np.ascontiguousarray(data), kind)
    return dataset


def _storage(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Any:
    properties = h5p.create(h5p.DATASET_CREATE)
    size = dtype.itemsize * int(np.prod(shape))
    if size <= COMPACT_BYTES:
        properties.set_layout(h5d.COMPACT)
    else:
        properties.set_chunk(shape or (1,))
    return properties


def _type_of(item: Field) -> tuple[np.dtype[Any], Any]:
    """The numpy and the HDF5 type of a field that has no value yet."""
    name = item.dtype or "str"
    if name == "str":
        length = max(1, item.length)
        return np.dtype(f"S{length}"), _text_type(length)
    dtype = np.dtype(name)
    return dtype, _number_type(dtype)


def _stored(value: Any) -> tuple[np.ndarray, Any]:
    """A static value as an array of fixed-length type, with its HDF5 type."""
    if isinstance(value, str):
        text = value.encode()
        # In steps, so that a title of a few letters more still fits a template.
        length = -(-max(1, len(text)) // TEXT_STEP) * TEXT_STEP
        return np.array(text, dtype=f"S{length}"), _text_type(length)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        texts = [item.encode() for item in value]
        length = max(1, *(len(text) for text in texts))
        return np.array(texts, dtype=f"S{length}"), _text_type(length)
    data = np.asarray(value)
    if data.dtype.kind == "U":
        data = np.char.encode(data, "utf-8")
    if data.dtype.kind == "S":
        return data, _text_type(max(1, data.dtype.itemsize))
    if data.dtype.names:
        return data, _table_type(data.dtype)
    return data, _number_type(data.dtype)


def _write_scalar(dataset: Any, item: Field, value: Any) -> None:
    dtype, kind = _type_of(item)
    data = as_rows([value], dtype, item.shape)[0].reshape(item.shape)
    space = h5s.create_simple(item.shape) if item.shape else _SCALAR
    dataset.write(space, space, data, kind)


def _replace_text(file: Any, place: bytes, item: Field, value: str) -> None:
    file.unlink(place)
    dataset = h5d.create(file, place, _TEXT_FILE_TYPE, _SCALAR)
    dataset.write(_SCALAR, _SCALAR, np.array(value, dtype=_TEXT), _TEXT_MEMORY_TYPE)
    _write_attributes(dataset, item.attributes)


def _write_attributes(target: Any, attributes: Mapping[str, Value], nx_class: str = "") -> None:
    if nx_class:
        _write_attribute(target, "NX_class", nx_class)
    for name, value in attributes.items():
        _write_attribute(target, name, value)


def _write_attribute(target: Any, name: str, value: Value) -> None:
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], str)):
        # Of variable length, unlike all fields: h5py gives such an attribute back as str and one of fixed
        # length as bytes, which many readers do not expect. It is in the file before SWMR mode begins.
        data = np.array(value, dtype=_TEXT)
        kind, memory = _TEXT_FILE_TYPE, _TEXT_MEMORY_TYPE
    else:
        data, kind = _stored(value)
        memory = kind
    space = h5s.create_simple(data.shape) if data.ndim else _SCALAR
    h5a.create(target, name.encode(), kind, space).write(data, memory)


_TEXT_TYPES: dict[int, Any] = {}
_NUMBER_TYPES: dict[str, Any] = {}


def _text_type(length: int) -> Any:
    found = _TEXT_TYPES.get(length)
    if found is None:
        found = h5t.C_S1.copy()
        found.set_size(length)
        found.set_cset(h5t.CSET_UTF8)
        found.set_strpad(h5t.STR_NULLPAD)
        _TEXT_TYPES[length] = found
    return found


def _number_type(dtype: np.dtype[Any]) -> Any:
    found = _NUMBER_TYPES.get(dtype.str)
    if found is None:
        found = _NUMBER_TYPES[dtype.str] = h5t.py_create(dtype, logical=True)
    return found


def _table_type(dtype: np.dtype[Any]) -> Any:
    kind = h5t.create(h5t.COMPOUND, dtype.itemsize)
    for name in dtype.names or ():
        column, offset = dtype.fields[name][:2]  # type: ignore[index]
        kind.insert(
            name.encode(), offset, _text_type(column.itemsize) if column.kind == "S" else _number_type(column)
        )
    return kind


def _compress(properties: Any, compression: Compression) -> None:
    if compression == "gzip":
        properties.set_shuffle()
        properties.set_deflate(4)
        return
    import hdf5plugin

    filters = hdf5plugin.Bitshuffle(cname="lz4")
    properties.set_filter(filters.filter_id, 0, tuple(filters.filter_options))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    # HDF5 puts the system's reason into the text: "(... errno = 28, error message = 'No space left on device' ...)"
    text = str(error).strip() or type(error).__name__
    _, found, rest = text.partition("error message = '")
    return rest.partition("'")[0] if found else text.splitlines()[0]
