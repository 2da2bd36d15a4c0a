"""Replies on disk: shared by all processes and runs, limited in size, never paid for twice."""

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import diskcache
from diskcache.core import MODE_PICKLE

from trl_balcap.judge.errors import JudgeConfigError
from trl_balcap.judge.questions import prompts_hash

logger = logging.getLogger(__name__)

_LOCK_TIMEOUT = 2  # seconds
_LOCKED_OUT = 3  # times in a row before the cache is abandoned

# What diskcache raises if its file is locked, broken, full or gone.
_BROKEN = (OSError, sqlite3.Error, diskcache.Timeout)


class CachedReply(NamedTuple):
    """A reply with the stamp it was stored under."""

    text: str
    prompts: str
    model: str


class ReplyCache:
    """Replies by key in a folder ([diskcache](https://grantjenks.com/docs/diskcache/): SQLite).

    A reply is on disk before its question counts as answered, so a killed run asks nothing again.
    Each entry holds the reply, the judge's model string and the hash of the prompt files; the
    question is stored only as a hash. All access runs in one thread, off the judge loop.

    A failing cache harms nothing else: if it is locked for two seconds three times in a row,
    corrupt or full, it is abandoned with one warning.

    Args:
        folder (`str`):
            Folder, created if missing.
        size (`int`):
            Maximum size in bytes. Least recently used entries go first.
    """

    def __init__(self, folder: str, size: int):
        self.folder = Path(folder).expanduser()
        self._size = size
        self._thread = ThreadPoolExecutor(1, "trl-balcap-cache")
        self._cache: diskcache.Cache | None = None
        self._broken = False
        self._locked_out = 0

    async def open(self) -> None:
        """Open the cache, so that an unusable folder is reported before training.

        Raises:
            `JudgeConfigError`: if the folder cannot be created or written.
        """

        def open_now() -> None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                writable = os.access(self.folder, os.W_OK)
            except OSError as error:
                raise JudgeConfigError(self._unusable(str(error))) from error
            if not writable:
                raise JudgeConfigError(self._unusable("it is not writable"))
            self._opened()

        await self._run(open_now)

    async def get(self, key: str) -> CachedReply | None:
        return await self._run(self._get, key)

    async def set(self, key: str, reply: str, model: str) -> None:
        await self._run(self._set, key, reply, model)

    async def get_all(self, keys: Sequence[str]) -> list[CachedReply | None]:
        """The replies of many keys, in their order, in one go."""
        return await self._run(self._get_all, keys) or [None] * len(keys)

    async def set_all(self, replies: Mapping[str, str], model: str) -> None:
        """Keep many replies in one go."""
        await self._run(self._set_all, replies, model)

    async def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._broken:
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._guarded, function, *arguments)

    def _guarded(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self._broken:
            return None
        try:
            found = function(*arguments)
        except JudgeConfigError:
            raise
        except _BROKEN as error:
            locked = isinstance(error, diskcache.Timeout) or "locked" in str(error)
            self._locked_out = self._locked_out + 1 if locked else _LOCKED_OUT
            if self._locked_out >= _LOCKED_OUT:
                # Losing the cache is fine; losing verdicts already paid for is not.
                self._broken = True
                logger.warning(
                    "The verdict cache in %s cannot be used (%s). Continuing without it.",
                    self.folder,
                    str(error) or type(error).__name__,
                )
            return None
        self._locked_out = 0
        return found

    def _opened(self) -> diskcache.Cache:
        if self._cache is None:
            self._cache = _Database(
                str(self.folder),
                timeout=_LOCK_TIMEOUT,
                disk=_PlainDisk,
                size_limit=self._size,
                eviction_policy="least-recently-used",
                cull_limit=32,
            )
        return self._cache

    def _unusable(self, why: str) -> str:
        return (
            f"Judge(cache={str(self.folder)!r}) cannot be used as a folder for verdicts: {why}. "
            "Pass a writable folder, or cache=None"
        )

    def _get(self, key: str) -> CachedReply | None:
        try:
            stored = self._opened().get(key)
            found = CachedReply(**json.loads(stored)) if isinstance(stored, str) else None
        except (ValueError, TypeError):
            return None  # not one of our rows, or one that was damaged on disk
        return found if found is not None and isinstance(found.text, str) else None

    def _set(self, key: str, reply: str, model: str) -> None:
        stored = json.dumps(CachedReply(reply, prompts_hash(), model)._asdict())
        self._opened().set(key, stored)

    def _get_all(self, keys: Sequence[str]) -> list[CachedReply | None]:
        with self._opened().transact():  # reading notes the time of use, which is a write
            return [self._get(key) for key in keys]

    def _set_all(self, replies: Mapping[str, str], model: str) -> None:
        with self._opened().transact():
            for key, reply in replies.items():
                self._set(key, reply, model)


class _Database(diskcache.Cache):
    @property
    def _sql_retry(self) -> Callable[..., Any]:
        # diskcache itself would try for a minute to open a locked file.
        def execute(*arguments: Any) -> Any:
            end = time.monotonic() + _LOCK_TIMEOUT
            while True:
                try:
                    return self._sql(*arguments)
                except sqlite3.OperationalError as error:
                    if "locked" not in str(error) or time.monotonic() > end:
                        raise
                    time.sleep(0.01)

        return execute


class _PlainDisk(diskcache.Disk):
    """Stores strings by string keys. Nothing is unpickled, and no file outside the folder is used.

    diskcache's own disks (even JSONDisk) unpickle any row marked as pickled, so a file planted in a
    shared folder could run code.
    """

    def get(self, key: Any, raw: bool) -> Any:
        return super().get(key, raw) if raw else None

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> Any:
        if mode == MODE_PICKLE or not self._inside(filename):
            return None
        return super().fetch(mode, filename, value, read)

    def remove(self, file_path: str) -> None:
        if self._inside(file_path):
            super().remove(file_path)

    def _inside(self, filename: str | None) -> bool:
        folder = os.path.realpath(self._directory)
        return filename is None or os.path.realpath(os.path.join(folder, filename)).startswith(
            folder + os.sep
        )
