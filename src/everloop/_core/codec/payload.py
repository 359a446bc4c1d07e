"""The envelope of everything stored: which codec wrote it, in which version, and how long it may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from everloop._core.codec.refusal import short
from everloop._core.errors import NotStorable, OptionError

#: Bytes that one payload may have, unless the app says otherwise.
LIMIT: Final = 1_048_576
_PLAIN: Final = b"j1"
# One wrap adds one layer per codec; more layers than this were not written by any app.
_LAYERS: Final = 16


class Codec(Protocol):
    """Something that rewrites payloads on their way to and from the store: compresses, encrypts, off-loads.

    Attributes:
        tag: One printable ASCII character, not `j`; it stands first in every payload that this codec
            wrote. Keep it, and keep the codec in the list, for as long as such payloads exist.
    """

    tag: str

    def encode(self, data: bytes) -> bytes:
        """Return what is stored in place of `data`."""
        ...

    def decode(self, data: bytes) -> bytes:
        """Return what `encode` was given."""
        ...


class Payloads:
    """Wraps data for the store and unwraps it.

    A payload is a codec character, a version character, and the data; the data of a codec is again
    a payload. `j1` is JSON as it is.

    Args:
        codecs: Applied in this order, so that the last one writes the outermost layer.
        limit: The longest payload, in bytes, as stored.

    Example:
        >>> Payloads().wrap(b"[1]", "the result of f()")
        b'j1[1]'
        >>> Payloads().unwrap(b"j1[1]")
        b'[1]'
    """

    def __init__(self, codecs: Sequence[Codec] = (), *, limit: int = LIMIT) -> None:
        self._codecs: dict[str, Codec] = {}
        for codec in codecs:
            tag = codec.tag
            if len(tag) != 1 or not (tag.isascii() and tag.isprintable()) or tag == "j":
                raise OptionError(f"a codec's `tag` is one printable ASCII character, not 'j'; got {tag!r}")
            if tag in self._codecs:
                raise OptionError(f"two codecs have the tag {tag!r}; it must tell them apart")
            self._codecs[tag] = codec
        self._limit = limit

    def wrap(self, data: bytes, what: str) -> bytes:
        """Return the payload of `data`.

        Args:
            data: JSON.
            what: Names it in messages, as in "the arguments of fetch()".

        Raises:
            NotStorable: It is too long, or a codec failed.
        """
        payload = _PLAIN + data
        for tag, codec in self._codecs.items():
            try:
                payload = f"{tag}1".encode() + codec.encode(payload)
            except Exception as error:
                raise NotStorable(f"the codec {tag!r} cannot write {what}: {error!r}") from error
        if len(payload) > self._limit:
            raise NotStorable(
                f"{what} cannot be stored: {_size(len(payload))}, and the limit is {_size(self._limit)}. "
                "Store the data elsewhere and pass a reference (a path, a URL, a row's id), or let "
                "App(codecs=[...]) compress or off-load it"
            )
        return payload

    def unwrap(self, data: bytes | str) -> bytes:
        """Return the data in a payload.

        Raises:
            NotStorable: This app has no codec for it, or the codec failed.
        """
        payload = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
        if payload[:2] == _PLAIN:
            return payload[2:]
        for _ in range(_LAYERS):
            if payload.startswith(_PLAIN):
                return payload[2:]
            payload = self._peel(payload)
        raise NotStorable(f"a payload has more than {_LAYERS} layers of codecs; Everloop did not write it")

    def _peel(self, payload: bytes) -> bytes:
        tag, version = payload[:1].decode("latin-1"), payload[1:2].decode("latin-1")
        codec = self._codecs.get(tag)
        if codec is None and tag != "j":
            known = ", ".join(["'j'", *map(repr, self._codecs)])
            raise NotStorable(
                f"a payload begins with {short(payload[:8])}: no codec has the tag {tag!r} (known here: "
                f"{known}). Give this process the App(codecs=[...]) of the one that stored it"
            )
        if version != "1" or codec is None:
            raise NotStorable(
                f"a payload begins with {short(payload[:8])}: version {version!r} of codec {tag!r} is "
                "unknown here; a newer Everloop stored it"
            )
        try:
            return codec.decode(payload[2:])
        except Exception as error:
            raise NotStorable(f"the codec {tag!r} cannot read a payload: {error!r}") from error


def _size(count: int) -> str:
    if count < 1024:
        return f"{count} bytes"
    number, unit = (count / 1024, "KiB") if count < 1024**2 else (count / 1024**2, "MiB")
    return f"{number:.2f}".rstrip("0").rstrip(".") + f" {unit}"
