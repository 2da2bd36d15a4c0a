"""Replies on disk: shared by all processes and runs, bounded in size, never paid for twice."""

import asyncio
import json
import logging
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from trl_balcap.judge.errors import JudgeConfigError
from trl_balcap.judge.questions import prompts_hash

logger = logging.getLogger(__name__)


class CachedReply(NamedTuple):
    """A reply with the stamp that it was stored under."""

    text: str
    prompts: str
    model: str


class ReplyCache:
    """Replies by key in a folder ([diskcache](https://grantjenks.com/docs/diskcache/): SQLite).

    A reply is on disk before its question counts as answered, so a killed run asks nothing again.
    What is stored is the reply, the judge's model string and the hash of the prompt files; the
    question is there as a hash only. All access runs in one thread, off the judge loop.

    Args:
        folder (`str`):
            Where; made if missing.
        size (`int`):
            Bound in bytes. What was used least recently goes first.

    Raises:
        `JudgeConfigError`: if the folder cannot be used.
    """

    def __init__(self, folder: str, size: int):
        self.folder = Path(folder).expanduser()
        self._size = size
        self._thread = ThreadPoolExecutor(1, "trl-balcap-cache")
        self._cache: Any = None
        self._broken = False

    async def get(self, key: str) -> CachedReply | None:
        return await self._run(self._get, key)

    async def set(self, key: str, reply: str, model: str) -> None:
        await self._run(self._set, key, reply, model)

    async def _run(self, function: Any, *arguments: Any) -> Any:
        if self._broken:
            return None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, function, *arguments)

    def _open(self) -> Any:
        if self._cache is None:
            import diskcache

            try:
                self._cache = diskcache.Cache(
                    str(self.folder),
                    size_limit=self._size,
                    eviction_policy="least-recently-used",
                    cull_limit=32,
                )
            except (OSError, sqlite3.Error) as error:
                raise JudgeConfigError(
                    f"Judge(cache={str(self.folder)!r}) cannot be used as a folder for verdicts: "
                    f"{error}. Give a folder that can be written, or cache=None"
                ) from error
        return self._cache

    def _get(self, key: str) -> CachedReply | None:
        stored = self._open().get(key, retry=True)
        if not isinstance(stored, str):
            return None
        return CachedReply(**json.loads(stored))

    def _set(self, key: str, reply: str, model: str) -> None:
        stored = json.dumps(CachedReply(reply, prompts_hash(), model)._asdict())
        try:
            self._open().set(key, stored, retry=True)
        except (OSError, sqlite3.Error) as error:
            # A full disk must not cost verdicts that are already paid for; it does cost the cache.
            self._broken = True
            logger.warning(
                "The verdict cache in %s cannot be written (%s). This process goes on without it.",
                self.folder,
                error,
            )
