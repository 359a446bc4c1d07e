"""From `module:app`, a file, or nothing at all to an `App`."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import tomllib
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import click

from everloop._app import App
from everloop._core.text import near_miss
from everloop._functions import TaskFunction
from everloop._runner import IMPORTING
from everloop.cli.exits import USAGE, Exit
from everloop.cli.terminal import say

#: Where an app is looked for when nothing names it.
USUAL = ("app.py", "main.py", "tasks.py")


def looks_like_target(text: str) -> bool:
    """Tell whether this names an app for sure: `module:app`, or a Python file."""
    return ":" in text or text.endswith(".py")


def load_app(target: str | None) -> App:
    """Return the app that `target` names, or the one of this folder.

    Raises:
        click.UsageError: There is none, and what there is instead.
        Exit: The user's module could not be imported; its traceback has been printed.
    """
    _put_on_path(Path.cwd())
    if target is not None:
        return _load(target)
    return _from_pyproject() or _from_environment() or _from_usual_files()


def _from_pyproject() -> App | None:
    for folder in (Path.cwd(), *Path.cwd().parents):
        path = folder / "pyproject.toml"
        if path.is_file():
            break
    else:
        return None
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path} cannot be read: {error}") from error
    target = settings.get("tool", {}).get("everloop", {}).get("app")
    if target is None:
        return None
    if not isinstance(target, str):
        raise click.UsageError(
            f'`app` in [tool.everloop] of {path} is a text such as "shop:app", not {target!r}'
        )
    _put_on_path(folder)
    say(f"everloop: using {target} ([tool.everloop] in {path})")
    return _load(target)


def _from_environment() -> App | None:
    target = os.environ.get("EVERLOOP_APP")
    if not target:
        return None
    say(f"everloop: using {target} (EVERLOOP_APP)")
    return _load(target)


def _from_usual_files() -> App:
    for name in USUAL:
        path = Path(name)
        # Importing runs a file: only one that speaks of us is.
        if path.is_file() and "everloop" in path.read_text(encoding="utf-8", errors="replace"):
            app = _load(name)
            say(f"everloop: using {name} (found in this folder)")
            return app
    raise click.UsageError(
        f"no app was named, and none of {', '.join(USUAL)} in {Path.cwd()} has one; write `module:app` or "
        "`file.py:app`, set EVERLOOP_APP, or put this into pyproject.toml:\n"
        '    [tool.everloop]\n    app = "module:app"'
    )


def _load(target: str) -> App:
    place, _, attribute = target.partition(":")
    if not place:
        raise click.UsageError(f"the app {target!r} has no module; write `module:app` or `file.py:app`")
    is_file = place.endswith(".py") or os.sep in place
    module = _import_file(place, target) if is_file else _import_module(place, target)
    return _attribute(module, attribute, place) if attribute else _only_app(module, place)


# -- modules ------------------------------------------------------------------------------------------------


def _import_file(place: str, target: str) -> ModuleType:
    path = Path(place).expanduser().absolute()
    if not path.is_file():
        near = near_miss(path.name, (p.name for p in path.parent.glob("*.py")))
        raise click.UsageError(f"there is no file {place!r} (for the app {target!r}){near}")
    names, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    _put_on_path(folder)
    module = _import_module(".".join(names), target)
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != path.resolve():
        raise click.UsageError(
            f"{place} cannot be imported: its name {module.__name__!r} is that of another module ({found}); "
            "rename the file"
        )
    return module


def _import_module(name: str, target: str) -> ModuleType:
    IMPORTING.append(name)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's module may raise anything
        inside = _users_frames(error.__traceback__)
        if inside is None and isinstance(error, ModuleNotFoundError):
            raise click.UsageError(
                f"could not import {name!r} (for the app {target!r}){_near_module(name)}"
            ) from None
        # The user's own failure: show the user's own frames, and not ours.
        traceback.print_exception(error.with_traceback(inside))
        what = f"{type(error).__name__} while importing {name!r}"
        raise Exit(USAGE, what) from None
    finally:
        IMPORTING.remove(name)


def _users_frames(trace: TracebackType | None) -> TracebackType | None:
    """Skip the frames of the import machinery, and this file's."""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if file not in (__file__, importlib.__file__) and not file.startswith("<frozen importlib"):
            return trace
        trace = trace.tb_next
    return None


def _near_module(name: str) -> str:
    parent, _, last = name.rpartition(".")
    if not parent:
        return near_miss(name, (module.name for module in pkgutil.iter_modules([str(Path.cwd())])))
    package = sys.modules.get(parent)
    if package is None:
        return f": there is no package {parent!r} in {Path.cwd()}, nor is one installed" + _near_module(
            parent
        )
    inside = pkgutil.iter_modules(getattr(package, "__path__", []))
    return near_miss(last, (module.name for module in inside))


def _put_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


# -- what is in them ----------------------------------------------------------------------------------------


def _attribute(module: ModuleType, attribute: str, place: str) -> App:
    value: Any = module
    for name in attribute.split("."):
        if not hasattr(value, name):
            apps = _apps(module)
            near = near_miss(name, apps) or near_miss(name, dir(value))
            raise click.UsageError(f"{place} has no attribute {attribute!r}{near}{_which(apps, place, near)}")
        value = getattr(value, name)
    if not isinstance(value, App):
        kind = "a task function" if isinstance(value, TaskFunction) else f"{value!r:.80}"
        hint = _which(_apps(module), place) or '; an app is made with `app = App("name")`'
        raise click.UsageError(f"{place}:{attribute} is {kind}, not an App{hint}")
    return value


def _only_app(module: ModuleType, place: str) -> App:
    apps = _apps(module)
    if not apps:
        raise click.UsageError(f'{place} has no App; one is made with `app = App("name")`')
    name = "app" if "app" in apps else next(iter(apps))
    if len({id(app) for app in apps.values()}) > 1 and name != "app":
        raise click.UsageError(f"{place} has several apps{_which(apps, place)}")
    return apps[name]


def _apps(module: ModuleType) -> dict[str, App]:
    return {name: value for name, value in vars(module).items() if isinstance(value, App)}


def _which(apps: Iterable[str], place: str, said: str = "") -> str:
    names = list(apps)
    if said or not names:
        return ""
    return f"; write {' or '.join(f'{place}:{name}' for name in names)}"
