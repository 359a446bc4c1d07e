"""Checking what the user wants fetched, before anything is stored."""

from __future__ import annotations

from urllib.parse import urlsplit

import click

_SCHEMES = ("http", "https")


def check_url(url: str) -> str:
    """Return the URL of a page, or say what to write instead.

    Raises:
        click.UsageError: It is none that can be fetched.
    """
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise click.UsageError(f"{url!r} has no scheme; write https://{url.lstrip('/')}")
    if scheme.lower() not in _SCHEMES:
        raise click.UsageError(f"{url!r} is no page of the web ({scheme}://); write https://{rest}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise click.UsageError(f"{url!r} is no URL: {error}") from None
    if not host or any(character.isspace() for character in url):
        raise click.UsageError(f"{url!r} names no host, or has a blank in it; write https://example.org/page")
    return url
