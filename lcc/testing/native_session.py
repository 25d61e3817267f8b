"""liblcc by ctypes, as far as the tests of the native runtime need it."""

import ctypes
from collections.abc import Iterator, Sequence
from ctypes import c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

DONE = 100


class _Struct(ctypes.Structure):
    """One whose first field is its own size."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(ctypes.sizeof(type(self)), **fields)


class ModelOptions(_Struct):
    """lcc_model_options of lcc.h."""

    _fields_ = [
        ("size", c_size_t),
        ("engine_library", c_char_p),
        ("target", c_char_p),
        ("threads", c_int32),
        ("mapped", c_int32),
        ("verify_sizes_only", c_int32),
        ("allow_native", c_int32),
    ]


class SessionOptions(_Struct):
    """lcc_session_options of lcc.h."""

    _fields_ = [
        ("size", c_size_t),
        ("capacity", c_int64),
        ("budget", c_int64),
        ("chunk_size", c_int64),
        ("seed", c_int64),
        ("archive_path", c_char_p),
        ("archive_dtype", c_char_p),
        ("archive_limit", c_int64),
    ]


class GenerateOptions(_Struct):
    """lcc_generate_options of lcc.h."""

    _fields_ = [
        ("size", c_size_t),
        ("max_new_tokens", c_int64),
        ("temperature", c_double),
        ("top_k", c_int64),
        ("top_p", c_double),
        ("min_p", c_double),
        ("repetition_penalty", c_double),
        ("seed", c_int64),
        ("stop", c_void_p),
        ("stop_count", c_size_t),
        ("ends", c_void_p),
        ("ends_count", c_size_t),
        ("ends_given", c_int32),
        ("no_recall", c_int32),
        ("no_prefix", c_int32),
        ("plain", c_int32),
    ]


class FeedOptions(_Struct):
    """lcc_feed_options of lcc.h."""

    _fields_ = [
        ("size", c_size_t),
        ("protect", c_int32),
        ("last", c_int32),
        ("no_prefix", c_int32),
        ("plain", c_int32),
        ("catalyst", c_char_p),
        ("catalyst_length", c_size_t),
        ("catalyst_ids", c_void_p),
        ("catalyst_count", c_size_t),
        ("progress", c_void_p),
        ("user", c_void_p),
    ]


class Message(ctypes.Structure):
    """lcc_message of lcc.h."""

    _fields_ = [("role", c_char_p), ("content", c_char_p)]


class Stats(_Struct):
    """lcc_session_stats of lcc.h."""

    _fields_ = [
        ("size", c_size_t),
        ("load_seconds", c_double),
        ("prefill_tokens", c_int64),
        ("prefill_seconds", c_double),
        ("decode_tokens", c_int64),
        ("decode_seconds", c_double),
        ("first_token_seconds", c_double),
        ("cycles", c_int64),
        ("cycle_seconds", c_double),
        ("recalls", c_int64),
        ("recall_seconds", c_double),
        ("recalled", c_int64),
        ("tokens", c_int64),
        ("used", c_int64),
        ("rewindable", c_int64),
        ("capacity", c_int64),
        ("budget", c_int64),
        ("chunk_size", c_int64),
        ("cache_bytes", c_int64),
        ("held_bytes", c_int64),
        ("archive_rows", c_int64),
        ("archive_bytes", c_int64),
        ("archive_stopped", c_char_p),
        ("peak_rss_bytes", c_int64),
    ]


def library_in(folder: Path) -> "Library":
    """The library that was built in a folder."""
    (path,) = [path for end in ("so", "dylib") for path in folder.glob(f"liblcc.{end}")]
    return Library(path)


class LibraryError(Exception):
    """The status that a call returned, by its name, and the message."""


class Library:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self.functions = ctypes.CDLL(str(path))
        for name in ("lcc_error_message", "lcc_status_name"):
            getattr(self.functions, name).restype = c_char_p

    def __call__(self, name: str, *arguments: Any) -> int:
        """A call that may say that it is done; LibraryError where it fails."""
        status: int = getattr(self.functions, name)(*arguments)
        if status not in (0, DONE):
            text = self.functions.lcc_error_message().decode()
            raise LibraryError(f"{self.functions.lcc_status_name(status).decode()}: {text}")
        return status

    def open(self, folder: Path, engine: Path | str | None, **options: int) -> "NativeModel":
        """An artifact, run by the engine's library."""
        how = ModelOptions(engine_library=str(engine).encode() if engine else None, **options)
        model = c_void_p()
        self("lcc_model_open", str(folder).encode(), ctypes.byref(how), ctypes.byref(model))
        return NativeModel(self, model)


class NativeModel:
    """An opened artifact."""

    def __init__(self, library: Library, handle: c_void_p) -> None:
        self.library, self.handle = library, handle

    def check_golden(self) -> None:
        """lcc_check_golden."""
        self.library("lcc_check_golden", self.handle)

    def session(
        self, archive: Path | None = None, dtype: str = "float16", limit: int = 0, **sizes: int
    ) -> "NativeSession":
        """lcc_session_open, with an archive where `archive` is given."""
        how = SessionOptions(**{"seed": -1, "archive_limit": limit} | sizes)
        if archive is not None:
            how.archive_path, how.archive_dtype = str(archive).encode(), dtype.encode()
        session = c_void_p()
        self.library("lcc_session_open", self.handle, ctypes.byref(how), ctypes.byref(session))
        return NativeSession(self.library, session)

    def close(self) -> None:
        """lcc_model_close."""
        self.library.functions.lcc_model_close(self.handle)


class NativeSession:
    """One text."""

    def __init__(self, library: Library, handle: c_void_p) -> None:
        self.library, self.handle = library, handle

    def feed(self, ids: Sequence[int]) -> None:
        """lcc_feed_ids."""
        array = (c_int32 * len(ids))(*ids)
        self.library("lcc_feed_ids", self.handle, array, c_size_t(len(ids)), None, None)

    def ids(self, prompt: Sequence[int], count: int, *, recall: bool = True) -> Iterator[int]:
        """Greedy ids behind a prompt, none of which ends the text."""
        how = GenerateOptions(
            max_new_tokens=count, temperature=0, top_k=-1, top_p=-1, min_p=-1,
            repetition_penalty=1, seed=-1, ends_given=1, no_recall=not recall,
        )  # fmt: skip
        array = (c_int32 * len(prompt))(*prompt)
        size = c_size_t(len(prompt))
        self.library("lcc_generate_start_ids", self.handle, array, size, ctypes.byref(how))
        found = c_int32()
        while self.library("lcc_generate_next_id", self.handle, ctypes.byref(found)) != DONE:
            yield found.value

    def logits(self) -> np.ndarray:
        """[V] float32, of the token after the last one."""
        count = c_size_t()
        self.library("lcc_next_logits", self.handle, None, c_size_t(0), ctypes.byref(count))
        array = (c_float * count.value)()
        self.library("lcc_next_logits", self.handle, array, count, ctypes.byref(count))
        return np.array(array, np.float32)

    def kept(self, layer: int) -> np.ndarray:
        """[Hkv, used] int64: lcc_kept_tokens of a layer."""
        heads, used = c_size_t(), c_size_t()
        sizes = ctypes.byref(heads), ctypes.byref(used)
        self.library("lcc_kept_tokens", self.handle, layer, None, c_size_t(0), *sizes)
        total = heads.value * used.value
        array = (c_int64 * total)()
        self.library("lcc_kept_tokens", self.handle, layer, array, c_size_t(total), *sizes)
        return np.array(array, np.int64).reshape(heads.value, used.value)

    def stats(self) -> Stats:
        """lcc_stats."""
        stats = Stats()
        self.library("lcc_stats", self.handle, ctypes.byref(stats))
        return stats

    def save(self, path: Path) -> None:
        """lcc_save."""
        self.library("lcc_save", self.handle, str(path).encode(), None)

    def load(self, path: Path) -> None:
        """lcc_load."""
        self.library("lcc_load", self.handle, str(path).encode())

    def rewind(self, count: int) -> None:
        """lcc_rewind."""
        self.library("lcc_rewind", self.handle, c_int64(count))

    def reset(self) -> None:
        """lcc_reset."""
        self.library("lcc_reset", self.handle)

    def close(self) -> None:
        """lcc_session_close."""
        self.library.functions.lcc_session_close(self.handle)
