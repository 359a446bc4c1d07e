"""The conventions of documentation examples, as CONTRIBUTING.md gives them."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from tests.docs.blocks import ROOT, BadBlock, Block, blocks
from tests.docs.scenes import commands, play, scenes
from tests.docs.test_documents import missing, segments

SOURCE = ROOT / "README.md"


def parse(text: str) -> list[Block]:
    return list(blocks(dedent(text), SOURCE))


def test_a_block_knows_its_line_and_its_language() -> None:
    (block,) = parse("""\
        Text.

        ```python
        print(1)
        ```
        """)

    assert (block.line, block.language, block.text) == (4, "python", "print(1)\n")


def test_directives_belong_to_the_next_block() -> None:
    first, second = parse("""\
        <!-- file: shop.py -->
        ```python
        x = 1
        ```
        ```python
        y = 2
        ```
        """)

    assert (first.directives, second.directives) == ({"file": "shop.py"}, {})


@pytest.mark.parametrize(
    "directive", ["<!-- no-run -->", "<!-- file -->", "<!-- continues: x -->", "<!-- server -->"]
)
def test_a_directive_has_its_form(directive: str) -> None:
    with pytest.raises(BadBlock, match=r"README.md:1: .* for its form"):
        parse(directive)


def test_a_directive_stands_directly_before_its_block() -> None:
    with pytest.raises(BadBlock, match=r"README.md:2: a directive stands directly before its block"):
        parse("<!-- continues -->\nText.\n")


def test_a_block_has_an_end() -> None:
    with pytest.raises(BadBlock, match="'python' has no end"):
        parse("```python\nx = 1\n")


def test_a_block_that_continues_shares_the_program() -> None:
    (scene,) = scenes(
        parse("""\
        ```python
        x = 1
        ```
        Text.
        <!-- continues -->
        ```python
        print(x)
        ```
        """)
    )

    assert [step.text for step in scene.steps] == ["\nx = 1\n\n\n\n\nprint(x)\n"]


def test_blocks_that_do_not_continue_are_scenes_of_their_own() -> None:
    found = scenes(parse("```python\nx = 1\n```\n```python\ny = 2\n```\n"))

    assert [scene.place for scene in found] == ["README.md:2", "README.md:5"]


def test_nothing_can_be_continued_before_the_first_block() -> None:
    with pytest.raises(BadBlock, match="there is no block before it to follow"):
        list(scenes(parse("<!-- run -->\n```console\n$ true\n```\n")))


def test_a_scene_shares_its_folder_and_compares_what_is_printed(tmp_path: Path) -> None:
    (scene,) = scenes(
        parse("""\
        <!-- file: shop.py -->
        ```python
        price = 3
        ```
        <!-- continues -->
        ```python
        from shop import price
        print("price", price)
        ```
        <!-- prints -->
        ```text
        price ...
        ```
        <!-- run -->
        ```console
        $ ls *.py
        example.py
        shop.py
        $ python -c "import shop; print(shop.price)"
        3
        ```
        """)
    )

    play(scene, tmp_path)


def test_a_scene_on_a_server_is_given_a_database_in_place_of_the_one_that_is_shown(tmp_path: Path) -> None:
    first, second = scenes(
        parse("""\
        <!-- server: mariadb -->
        ```python
        import os
        print("mysql+asyncmy://shop:secret@localhost/shop", os.environ["EVERLOOP_STORE"])
        ```
        <!-- prints -->
        ```text
        mysql+asyncmy://me:mine@here/own?x=1 mysql://me:mine@here/own?x=1
        ```
        <!-- run -->
        ```console
        $ echo mysql://shop:secret@localhost/shop $EVERLOOP_STORE
        mysql://me:mine@here/own?x=1 mysql://me:mine@here/own?x=1
        ```
        ```python
        import os
        assert "EVERLOOP_STORE" not in os.environ
        ```
        """)
    )

    assert (first.server, second.server) == ("mariadb", None)
    play(first, tmp_path, "mysql://me:mine@here/own?x=1")
    play(second, tmp_path)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```python\n1 / 0\n```\n", r'README.md:2: ended with 1\n(.*\n)*.*example.py", line 2'),
        (
            "```python\nprint(1)\n```\n<!-- prints -->\n```text\n2\n```\n",
            r"README.md:6 shows\n2\n\nand it printed\n1",
        ),
        ("```python\n```\n<!-- run -->\n```console\n$ false\n```\n", r"README.md:5: ended with 1"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, told: str, tmp_path: Path) -> None:
    (scene,) = scenes(parse(text))
    with pytest.raises(AssertionError, match=told):
        play(scene, tmp_path)


def test_commands_are_told_from_what_they_print() -> None:
    console = "$ everloop ls \\\n    --limit 3\nid  state\n$ make demo\n"

    assert list(commands(console)) == [("everloop ls      --limit 3", "id  state"), ("make demo", "")]


def test_a_line_of_shell_is_taken_apart() -> None:
    found = list(segments("X=1 everloop ls | head -n 3 && make test ARGS=a  # all of it"))

    assert found == [["everloop", "ls"], ["head", "-n", "3"], ["make", "test", "ARGS=a"]]


@pytest.mark.parametrize(
    ("line", "unknown"),
    [
        ("everloop ls --limit 3", None),
        ("everloop --version", None),
        ("everloop los", "los"),
        ("everloop ls --limited=3", "--limited"),
        ("make test ARGS=x", None),
        ("make tea", "tea"),
        ("pip install 'everloop[sql,cli]'", None),
        ("pip install 'everloop[sql,oracle]'", "oracle"),
        ("python examples/no_such.py", "examples/no_such.py"),
        ("git clone somewhere", None),
    ],
)
def test_what_a_command_names_is_looked_up(line: str, unknown: str | None) -> None:
    (words,) = segments(line)

    assert missing(words) == unknown
