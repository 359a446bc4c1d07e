"""From `module:app`, a file, or nothing at all to an app."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Shop

LS = ("ls", "-o", "jsonl")


def write(shop: Shop, name: str, text: str) -> Path:
    path = shop.folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def refused(shop: Shop, target: str) -> str:
    ran = shop.run(*LS, target)

    assert (ran.code, ran.out) == (2, "")
    return ran.err


def test_accepted(shop: Shop) -> None:
    write(shop, "again.py", "from shop import app")
    targets = ["shop:app", "shop", "shop.py", "shop.py:app", "./shop.py", "again:app"]

    assert [ran.checked().err for ran in shop.run_each([[*LS, target] for target in targets])] == [""] * 6


def test_a_file_in_a_package_is_imported_as_a_part_of_it(shop: Shop) -> None:
    write(shop, "src/deep/__init__.py", "")
    write(shop, "src/deep/names.py", "NAME = 'deep'")
    write(
        shop,
        "src/deep/tasks.py",
        "from everloop import App\nfrom .names import NAME\nclass box: app = App(NAME)",
    )

    assert shop.run(*LS, "src/deep/tasks.py:box.app").checked().err == ""


def test_near_misses(shop: Shop) -> None:
    said = {
        "shpo:app": "could not import 'shpo' (for the app 'shpo:app'); did you mean 'shop'?",
        "shop:ap": "shop has no attribute 'ap'; did you mean 'app'?",
        "shop:zzz": "shop has no attribute 'zzz'; write shop:app",
        "shop:add": "shop:add is a task function, not an App; write shop:app",
        "shop:Path": "not an App; write shop:app",
        "shpo.py": "there is no file 'shpo.py' (for the app 'shpo.py'); did you mean 'shop.py'?",
        "json:app": "json has no attribute 'app'",
        "json.toool:app": "could not import 'json.toool' (for the app 'json.toool:app'); did you mean",
        ":app": "has no module; write `module:app`",
    }
    shop.check_refusals(2, {(*LS, target): words for target, words in said.items()})


def test_several_apps_and_none(shop: Shop) -> None:
    write(shop, "two.py", "from everloop import App\none = App('one')\ntwo = App('two')")
    write(shop, "none.py", "")

    assert "two has several apps; write two:one or two:two" in refused(shop, "two")
    assert 'none.py has no App; one is made with `app = App("name")`' in refused(shop, "none.py")


def test_a_file_that_is_hidden_by_a_module_of_its_name(shop: Shop) -> None:
    write(shop, "sub/click.py", "app = 1")

    assert "rename the file" in refused(shop, "sub/click.py")


def test_a_failing_import_shows_the_users_traceback_only(shop: Shop) -> None:
    broken = {
        "ZeroDivisionError": "import shop\n\ndef go():\n    return 1 / 0\n\ngo()",
        "ModuleNotFoundError": "import surely_not_there",
        "SyntaxError": "def go(:\n    pass",
        "SystemExit": "raise SystemExit('no')",
    }
    for error, text in broken.items():
        write(shop, f"{error}.py", text)
    for error, ran in zip(broken, shop.run_each([[*LS, f"{error}:app"] for error in broken]), strict=True):
        assert (ran.code, ran.out) == (2, "")
        assert f"{error} while importing '{error}'" in ran.err
        assert f"{error}.py" in ran.err
        assert not any(word in ran.err for word in ("could not import", "importlib", "everloop/cli"))


def test_without_a_target_pyproject_counts_then_the_environment_then_the_usual_files(shop: Shop) -> None:
    write(shop, "tasks.py", "from shop import app  # of everloop: only such a file is imported")
    assert "using tasks.py (found in this folder)" in shop.run(*LS).checked().err
    assert "using shop:app (EVERLOOP_APP)" in shop.run(*LS, EVERLOOP_APP="shop:app").checked().err

    pyproject = write(shop, "pyproject.toml", '[tool.everloop]\napp = "shop:app"')
    told = shop.run(*LS, EVERLOOP_APP="shpo:app").checked().err
    assert f"using shop:app ([tool.everloop] in {pyproject})" in told

    pyproject.write_text("[tool.everloop]\napp = 3")
    assert "is a text such as" in shop.run(*LS).err


def test_without_anything_it_says_what_to_write(shop: Shop) -> None:
    write(shop, "main.py", "raise SystemExit('not ours, and not imported')")

    ran = shop.run(*LS)

    assert ran.code == 2
    assert "no app was named" in ran.err
    assert "EVERLOOP_APP" in ran.err


def test_an_app_in_memory_cannot_be_seen_from_here(shop: Shop) -> None:
    write(
        shop,
        "inside.py",
        "from everloop import App\napp = App('inside', 'memory://')\n@app.task\ndef f(): pass",
    )

    lines = [("ls", "inside:app"), ("worker", "inside:app"), ("submit", "inside:app", "f")]
    shop.check_refusals(2, dict.fromkeys(lines, "inside one process"))
