"""The commands, each imported when it is asked for, and what becomes of their errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import click
from typing_extensions import override

from everloop._core.errors import EverloopError
from everloop._core.text import near_miss
from everloop.cli import exits
from everloop.cli.terminal import clean, paint, say

#: Name to module and summary: listing them imports none of them.
COMMANDS = {
    "demo": ("everloop.cli.demo.command", "Fetch pages at once as durable tasks, and kill the worker."),
    "worker": ("everloop.cli.worker", "Run the tasks of an app until it is told to stop."),
    "submit": ("everloop.cli.submit", "Submit a call, and with --wait print its result."),
    "ls": ("everloop.cli.ls", "List calls, newest first."),
    "show": ("everloop.cli.show", "Show everything about one call."),
    "logs": ("everloop.cli.logs", "Show what the runs of one call have logged."),
    "workers": ("everloop.cli.workers", "List the workers: where they run, what they serve, how they are."),
    "retry": ("everloop.cli.retry", "Submit finished calls anew."),
    "migrate": ("everloop.cli.migrate", "Bring a store's schema up to date, or say what is missing."),
    "export": ("everloop.cli.export", "Print finished calls and their histories as JSON lines."),
    "doctor": ("everloop.cli.doctor", "Say what is wrong with a store and its workers, and what to do."),
    "cancel": ("everloop.cli.cancel", "Cancel calls that have not finished."),
}


class Command(click.Command):
    """A command whose help ends with a runnable example and its exit codes."""

    def __init__(self, *args: Any, example: str, codes: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.codes = codes

    @override
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), exits.TEXTS[code]) for code in self.codes])
        with formatter.section("Example"):
            for line in self.example.strip().splitlines():
                formatter.write(f"  {line}\n")


class Group(click.Group):
    """The commands by name; a misspelt one is answered with the nearest."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no command {args[0]!r}{near_miss(args[0], COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)

    @override
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    @override
    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Exit codes"):
            formatter.write_dl([(str(code), text) for code, text in exits.TEXTS.items()])
        with formatter.section("Example"):
            formatter.write("  everloop demo\n  everloop worker shop:app\n")


@click.group(
    cls=Group,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    options_metavar="[OPTIONS]",
    subcommand_metavar="COMMAND ...",
)
@click.version_option(None, "-V", "--version", package_name="everloop", message="everloop %(version)s")
def group() -> None:
    """Everloop: asyncio, durable and distributed.

    Where a command takes an app, write `module:app` or `file.py`. Without one it is `[tool.everloop] app`
    of pyproject.toml, then EVERLOOP_APP, then app.py, main.py or tasks.py in this folder.
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; every error becomes a message and a code."""
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on(stream)
    terminated: list[int] = []

    def terminate(number: int, _frame: object) -> None:
        # As after Ctrl-C, which asyncio handles well, but with an exit code of its own.
        terminated.append(number)
        signal.raise_signal(signal.SIGINT)

    signal.signal(signal.SIGTERM, terminate)
    # A script's background commands begin with SIGINT ignored; asyncio then would not handle it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = group.main(list(arguments), prog_name="everloop", standalone_mode=False)
        sys.stdout.flush()
        return int(code or exits.OK)
    except (KeyboardInterrupt, click.Abort):
        say("everloop: terminated" if terminated else "everloop: interrupted")
        return exits.TERMINATED if terminated else exits.INTERRUPTED
    except (click.exceptions.Exit, click.ClickException, EverloopError, BrokenPipeError) as error:
        return _explain(error)


def _explain(error: Exception) -> int:
    """Say what went wrong, and return the exit code that it means."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.UsageError):
        return _explain_usage(error)
    if isinstance(error, BrokenPipeError):
        # Whoever read our output has seen enough (`everloop ls | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exits.FAILED
    if isinstance(error, exits.Exit):
        _complain(error.message)
        return error.code
    _complain(error.message if isinstance(error, click.ClickException) else str(error))
    return exits.code_of(error) if isinstance(error, EverloopError) else exits.FAILED


def _never_fail_on(stream: object) -> None:
    """Escape what the terminal's encoding cannot show, instead of failing in the middle of a table."""
    reconfigure: Callable[..., None] | None = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _complain(text: str) -> None:
    if text:
        label = paint("everloop:", "bold", "red", stream=sys.stderr)
        say(f"{label} {clean(text, lines=True)}")


def _explain_usage(error: click.UsageError) -> int:
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        say(error.format_message())
        return exits.USAGE
    if isinstance(error, click.NoSuchOption):
        near = near_miss(error.option_name, error.possibilities or ())
        _complain(f"there is no option {error.option_name!r}{near}")
    else:
        _complain(error.format_message())
    if error.ctx is not None:
        say(f"For help: {error.ctx.command_path} --help")
    return exits.USAGE
