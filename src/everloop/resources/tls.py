"""TLS towards MySQL and MariaDB: one meaning of a URL's `ssl...` for both drivers."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from everloop._core.errors import ConfigError

_ON = ("1", "on", "require", "required", "true", "yes")
_OFF = ("", "0", "disable", "disabled", "false", "no", "off")
_KNOWN = ("ca", "capath", "cert", "check_hostname", "cipher", "key")


def tls_context(asked: object, verify: object = None) -> ssl.SSLContext | None:
    """Return the context that an `ssl` argument of a driver asks for, or None where it asks for none.

    Args:
        asked: A context, a bool or such a word of a URL, or the files that `ssl_ca`, `ssl_cert`, `ssl_key`,
            `ssl_capath`, `ssl_cipher` and `ssl_check_hostname` of a URL name. The server's certificate is
            verified.
        verify: A word of `_OFF`, as `ssl_verify` of a URL has it, encrypts for whoever answers.

    Raises:
        ConfigError: It is something else, or one of its files cannot be read.
    """
    if verify is not None:
        if str(verify).lower() not in (*_ON, *_OFF):
            raise ConfigError(f"`ssl_verify` is true or false, not {verify!r:.100}")
        if str(verify).lower() in _OFF:
            context = tls_context(True if asked is None else asked)
            if context is not None:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            return context
    if asked is None or asked is False or (isinstance(asked, str) and asked.lower() in _OFF):
        return None
    if isinstance(asked, ssl.SSLContext):
        return asked
    if asked is True or (isinstance(asked, str) and asked.lower() in _ON):
        return ssl.create_default_context()
    if isinstance(asked, Mapping) and set(asked) <= set(_KNOWN):
        return _from_files(asked)
    raise ConfigError(
        f"`ssl` asks for TLS with {asked!r:.100}, which means nothing here; write ssl=true, or "
        "ssl_ca=/path/ca.pem, or give connect_args={'ssl': ssl.SSLContext}"
    )


def _from_files(files: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=files.get("ca"), capath=files.get("capath"))
        if files.get("check_hostname") is False:
            context.check_hostname = False
        if "cert" in files:
            context.load_cert_chain(files["cert"], files.get("key"))
        if "cipher" in files:
            context.set_ciphers(files["cipher"])
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the files for TLS, {dict(files)!r}, cannot be used: {error}") from error
    return context
