"""What a judge's requests may do: follow no redirect, and bring back no more than can be read.

A redirect would take keys and headers along, and litellm looks for secrets in each error at some
seconds a megabyte, which is what an image takes that an endpoint echoes. litellm has a client for
nearly each provider, and the packages below it have theirs. What they share is httpx, so the rules
are there, for a judge's calls alone.
"""

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import httpx

_LARGEST = 8_000_000  # bytes, several times what a reply may have
_LARGEST_ERROR = 16_384  # likewise; of which 400 characters are shown

_redirects: ContextVar[list[str] | None] = ContextVar("redirects", default=None)


@contextlib.contextmanager
def careful_requests() -> Iterator[list[str]]:
    """A block in which this task's requests obey the rules; yields the redirects that they met.

    Each is the status with the host that it names, for an address may hold a secret.
    """
    _teach_httpx()
    token = _redirects.set(met := [])
    try:
        yield met
    finally:
        _redirects.reset(token)


@functools.cache
def _teach_httpx() -> None:
    # On the class: a client of litellm's may be there already, and outlives the block.
    send, send_now = httpx.AsyncClient.send, httpx.Client.send

    @functools.wraps(send)
    async def careful(self, request, **options):
        met = _redirects.get()
        if met is None:
            return await send(self, request, **options)
        return _looked_at(await send(self, request, **options | _NO_REDIRECTS), met)

    @functools.wraps(send_now)
    def careful_now(self, request, **options):
        met = _redirects.get()
        if met is None:
            return send_now(self, request, **options)
        return _looked_at(send_now(self, request, **options | _NO_REDIRECTS), met)

    httpx.AsyncClient.send, httpx.Client.send = careful, careful_now  # type: ignore[method-assign]


_NO_REDIRECTS: dict[str, Any] = {"follow_redirects": False}


def _looked_at(response: httpx.Response, met: list[str]) -> httpx.Response:
    if response.has_redirect_location:
        host = urlsplit(response.headers["location"]).netloc.rpartition("@")[2]
        met.append(f"{response.status_code} to {host or 'another path'}")
    if not response.is_closed:  # it is read piece by piece
        return response
    largest = _LARGEST_ERROR if response.is_error else _LARGEST
    if len(response.content) <= largest:
        return response
    kept = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
    start = response.content[:_LARGEST_ERROR]
    return httpx.Response(
        response.status_code, headers=kept, content=start, request=response.request
    )
