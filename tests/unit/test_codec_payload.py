"""The envelope: a codec character, a version character, the data; never more than the limit."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from everloop._core.codec import Payloads
from everloop._core.errors import NotStorable, OptionError


class Zip:
    tag = "z"

    def encode(self, data: bytes) -> bytes:
        return zlib.compress(data)

    def decode(self, data: bytes) -> bytes:
        return zlib.decompress(data)


class Mask:
    def __init__(self, tag: str = "x") -> None:
        self.tag = tag

    def encode(self, data: bytes) -> bytes:
        return bytes(byte ^ 255 for byte in data)

    decode = encode


class Broken:
    tag = "b"

    def encode(self, data: bytes) -> bytes:
        raise OSError("disk full")

    def decode(self, data: bytes) -> bytes:
        raise OSError("disk gone")


def test_plain_json_stands_behind_two_characters() -> None:
    assert Payloads().wrap(b'["x"]', "it") == b'j1["x"]'
    assert Payloads().unwrap(b'j1["x"]') == b'["x"]'
    assert Payloads().unwrap('j1["é"]') == '["é"]'.encode()


@given(st.binary())
def test_codecs_are_peeled_off_in_reverse(data: bytes) -> None:
    payloads = Payloads([Zip(), Mask()])
    wrapped = payloads.wrap(data, "it")
    assert wrapped.startswith(b"x1")
    assert payloads.unwrap(wrapped) == data
    assert Payloads([Mask(), Zip()]).unwrap(wrapped) == data, "the order may change later"
    assert payloads.unwrap(Payloads().wrap(data, "it")) == data, "and so may whether there are codecs"


def test_a_payload_over_the_limit_says_what_to_do() -> None:
    Payloads(limit=100).wrap(b"x" * 98, "it")
    with pytest.raises(NotStorable) as caught:
        Payloads(limit=100).wrap(b"x" * 99, "it")
    assert str(caught.value).startswith("it cannot be stored: 101 bytes, and the limit is 100 bytes. ")
    with pytest.raises(NotStorable) as caught:
        Payloads().wrap(b"x" * 1_500_000, "the arguments of fetch()")
    assert str(caught.value) == (
        "the arguments of fetch() cannot be stored: 1.43 MiB, and the limit is 1 MiB. Store the data "
        "elsewhere and pass a reference (a path, a URL, a row's id), or let App(codecs=[...]) compress "
        "or off-load it"
    )
    assert len(Payloads([Zip()]).wrap(b"x" * 1_500_000, "it")) < 10_000
    with pytest.raises(NotStorable, match=r"it cannot be stored: 2 KiB, and the limit is 1\.5 KiB"):
        Payloads(limit=1536).wrap(b"x" * 2046, "it")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            b"",
            "a payload begins with b'': no codec has the tag '' (known here: 'j', 'z'). Give ",
        ),
        (
            b"q1abc",
            "a payload begins with b'q1abc': no codec has the tag 'q' (known here: 'j', 'z'). Give this ",
        ),
        (b"\xff\xfe", r"a payload begins with b'\xff\xfe': no codec has the tag 'ÿ' (known here: 'j', 'z')"),
        ("\ud800", r"a payload begins with b'\xed\xa0\x80': no codec has the tag"),
        (
            b"j2[]",
            "a payload begins with b'j2[]': version '2' of codec 'j' is unknown here; a newer ",
        ),
        (
            b"z2..",
            "a payload begins with b'z2..': version '2' of codec 'z' is unknown here; a newer Everloop",
        ),
        (
            b"j",
            "a payload begins with b'j': version '' of codec 'j' is unknown here; a newer ",
        ),
        (b"z1no zip", "the codec 'z' cannot read a payload: error('Error -3"),
    ],
    ids=range(8),
)
def test_what_this_app_cannot_unwrap_is_refused(data: bytes | str, text: str) -> None:
    with pytest.raises(NotStorable) as caught:
        Payloads([Zip()]).unwrap(data)
    assert str(caught.value).startswith(text)


def test_a_codec_that_fails_is_named() -> None:
    with pytest.raises(
        NotStorable, match=r"^the codec 'b' cannot write it: OSError\('disk full'\)$"
    ) as caught:
        Payloads([Broken()]).wrap(b"[]", "it")
    assert isinstance(caught.value.__cause__, OSError)
    with pytest.raises(NotStorable, match=r"^the codec 'b' cannot read a payload: OSError\('disk gone'\)$"):
        Payloads([Broken()]).unwrap(b"b1")


def test_layers_end() -> None:
    class Endless(Mask):
        def decode(self, data: bytes) -> bytes:
            return b"e1" + data

    with pytest.raises(NotStorable) as caught:
        Payloads([Endless("e")]).unwrap(b"e1")
    assert str(caught.value) == "a payload has more than 16 layers of codecs; Everloop did not write it"


@pytest.mark.parametrize("tag", ["", "j", "zz", "é", "\n"])
def test_a_tag_is_one_printable_ascii_character(tag: str) -> None:
    with pytest.raises(OptionError) as caught:
        Payloads([Mask(tag)])
    assert str(caught.value) == f"a codec's `tag` is one printable ASCII character, not 'j'; got {tag!r}"


def test_two_codecs_have_two_tags() -> None:
    with pytest.raises(OptionError) as caught:
        Payloads([Zip(), Mask("z")])
    assert str(caught.value) == "two codecs have the tag 'z'; it must tell them apart"
