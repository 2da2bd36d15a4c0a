"""Restricts a judge's requests: they do not follow redirects, and responses are limited in size.

A redirect would forward keys and headers. And litellm scans each error for secrets, which takes
several seconds per megabyte, about the size of an image echoed by an endpoint. litellm has its own
client for almost every provider, and so do the packages that it uses. All of them use httpx, so we
enforce the rules there, only for a judge's calls.
"""

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import httpx

_LARGEST = 8_000_000  # bytes, several times the largest valid reply
_LARGEST_ERROR = 16_384  # bytes; 400 characters of it are shown

_redirects: ContextVar[list[str] | None] = ContextVar("redirects", default=None)


@contextlib.contextmanager
def careful_requests() -> Iterator[list[str]]:
    """Context in which this task's requests obey the rules; yields the redirects they received.

    Each is given as its status and host only, since a full address may contain a secret.
    """
    _teach_httpx()
    token = _redirects.set(met := [])
    try:
        yield met
    finally:
        _redirects.reset(token)


@functools.cache
def _teach_httpx() -> None:
    # On the class, since litellm's clients may already exist, and outlive the context.
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
    if not response.is_closed:  # it is streamed
        return response
    largest = _LARGEST_ERROR if response.is_error else _LARGEST
    if len(response.content) <= largest:
        return response
    kept = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
    start = response.content[:_LARGEST_ERROR]
    return httpx.Response(
        response.status_code, headers=kept, content=start, request=response.request
    )
