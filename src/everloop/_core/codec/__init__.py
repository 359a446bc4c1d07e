"""Values and exceptions to bytes and back. Pure: it knows no store, no app, no task.

* `values` - `Shape`: how the values of one annotation travel (`hints`, `records` look at annotations)
* `tags` - any value as JSON, what JSON loses under tags (`known` classes have their own)
* `compare` - did it come back as it went?
* `arguments` - `Arguments`: a function's parameters (`signatures` reads them)
* `payload` - `Payloads`: the envelope, and the users' codecs
* `errors`, `remote` - exceptions to records, records to exceptions
* `reading`, `refusal` - untrusted JSON; why and where a value is refused
"""

from __future__ import annotations

from everloop._core.codec.arguments import Arguments
from everloop._core.codec.errors import dump_error, error_record
from everloop._core.codec.known import register
from everloop._core.codec.payload import Codec, Payloads
from everloop._core.codec.remote import RemoteTraceback, load_error
from everloop._core.codec.signatures import parameters_of
from everloop._core.codec.values import Shape

__all__ = [
    "Arguments",
    "Codec",
    "Payloads",
    "RemoteTraceback",
    "Shape",
    "dump_error",
    "error_record",
    "load_error",
    "parameters_of",
    "register",
]
