"""Two processes and one call: what the first does with it, in each of its roles, the second sees.

The first is a client, a task in a worker, a program with an embedded worker, or the command line; the second
is the worker that runs the call. This process looks on, as a third.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.helpers.crew import LONG
from tests.helpers.stage import Stage

#: One process does an action on a call; what it says of it is returned. Arguments: action, name, id.
Role = Callable[[Stage, str, str, str], str]


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Start the second process, which runs the calls, and a worker whose tasks are first processes."""
    stage = Stage.make(tmp_path_factory.mktemp("pairs"))
    with stage.worker("naps", "default", name="second"), stage.worker("acts", name="first"):
        yield stage


@pytest.fixture
async def stage(theatre: Stage) -> AsyncIterator[Stage]:
    async with theatre.crew.app:
        yield theatre


# -- the roles of the first process -------------------------------------------------------------------------

MAIN = """
async def main():
    print(await ACTIONS[sys.argv[1]](crew, *sys.argv[2:]))
"""


def client(stage: Stage, action: str, name: str, target: str) -> str:
    text = f"{MAIN}\nasync def client():\n    async with app:\n        await main()\nasyncio.run(client())"
    with stage.program(text, action, name, target, name=name) as program:
        return program.ended().checked().out.strip()


def automatic(stage: Stage, action: str, name: str, target: str) -> str:
    with stage.program(f"{MAIN}\nasyncio.run(main())", action, name, target, name=name) as program:
        return program.ended().checked().out.strip()


def embedded(stage: Stage, action: str, name: str, target: str) -> str:
    text = f'{MAIN}\napp.run(main(), queues=["another"])'
    with stage.program(text, action, name, target, name=name) as program:
        return program.ended().checked().out.strip()


def in_a_task(stage: Stage, action: str, name: str, target: str) -> str:
    call = json.dumps([action, name, target])
    said: str = json.loads(stage.command("submit", "act", call, "--wait", name=name).checked().out)
    return said


def command_line(stage: Stage, action: str, name: str, target: str) -> str:
    def run(verb: str, *arguments: str) -> str:
        return stage.command(verb, *arguments, name=name).checked().out.strip()

    match action:
        case "submit":
            return run("submit", "nap", json.dumps([name, 0.1]))
        case "await":
            said: str = json.loads(run("submit", "nap", json.dumps([name, 0.1]), "--wait"))
            return said
        case "cancel":
            asked = run("cancel", target, "--message", "from afar")
            assert asked.split() == [target, "asked"]
            return "asked"
        case "callback":
            run("submit", "watched", json.dumps([name, 0.1]))
            return "local: there is no such thing"
        case _:
            shown = json.loads(run("show", target, "-o", "json"))
            return f"{shown['result']} has {shown['state']}"


ROLES: list[Role] = [client, automatic, embedded, in_a_task, command_line]
in_every_role = pytest.mark.parametrize("first", ROLES, ids=lambda role: role.__name__)


# -- the actions --------------------------------------------------------------------------------------------


@in_every_role
async def test_what_the_first_submits_the_second_runs(stage: Stage, first: Role) -> None:
    name = f"submitted-{first.__name__}"
    id_ = first(stage, "submit", name, "")

    assert await (await stage.crew.app.get_task(id_, stage.crew.nap)) == name
    assert f"{name} ends" in stage.crew.log.lines


@in_every_role
async def test_what_the_first_awaits_the_second_returns(stage: Stage, first: Role) -> None:
    name = f"awaited-{first.__name__}"

    assert first(stage, "await", name, "") == name
    assert f"{name} ends" in stage.crew.log.lines


@in_every_role
async def test_what_the_first_cancels_stops_in_the_second(stage: Stage, first: Role) -> None:
    name = f"cancelled-{first.__name__}"
    task = await stage.crew.app.submit(stage.crew.nap(name, LONG))
    await stage.crew.log.until(f"{name} begins")

    assert first(stage, "cancel", name, task.id) == "asked"
    await stage.crew.log.until(f"{name} stops: cancelled (from afar)", f"{name} cleans up")
    await stage.until_state(task, "cancelled")


@in_every_role
async def test_the_callbacks_of_the_first_are_called(stage: Stage, first: Role) -> None:
    name = f"watched-{first.__name__}"
    said = first(stage, "callback", name, "")

    if first is command_line:
        await stage.crew.log.until(f"durable of watched: succeeded {name}")
    else:
        assert said == f"local: {name}"
        await stage.crew.log.until(f"durable of {name}: succeeded {name}")


@in_every_role
async def test_the_first_gets_a_task_of_the_second(stage: Stage, first: Role) -> None:
    name = f"got-{first.__name__}"
    task = await stage.crew.app.submit(stage.crew.nap(name, 0.1))
    if first is command_line:  # it shows what there is, and does not wait
        await task

    assert first(stage, "get_task", name, task.id) == f"{name} has succeeded"


# -- the other way round: the second process is a program with an embedded worker ---------------------------

SERVING = """
async def main():
    print("serving", flush=True)
    await asyncio.sleep(600)
app.run(main(), queues=["naps", "default"])
"""


@pytest.fixture(scope="module")
def embedding_theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    stage = Stage.make(tmp_path_factory.mktemp("embedding"))
    with stage.program(SERVING, name="second") as second:
        second.until("serving")
        yield stage


@pytest.mark.parametrize("first", [client, command_line], ids=lambda role: role.__name__)
@pytest.mark.parametrize("action", ["submit", "await", "cancel", "callback", "get_task"])
async def test_the_second_may_be_a_program_that_embeds_a_worker(
    embedding_theatre: Stage, first: Role, action: str
) -> None:
    tests = {
        "submit": test_what_the_first_submits_the_second_runs,
        "await": test_what_the_first_awaits_the_second_returns,
        "cancel": test_what_the_first_cancels_stops_in_the_second,
        "callback": test_the_callbacks_of_the_first_are_called,
        "get_task": test_the_first_gets_a_task_of_the_second,
    }
    async with embedding_theatre.crew.app:
        await tests[action](embedding_theatre, first)


# -- lists --------------------------------------------------------------------------------------------------


async def test_the_command_line_lists_what_the_others_made(stage: Stage) -> None:
    task = await stage.crew.app.submit(stage.crew.nap("listed", 0.0), tags=["listed"])
    await task
    (line,) = stage.command("ls", "--tag", "listed", "-o", "jsonl").checked().lines

    listed = json.loads(line)
    assert (listed["id"], listed["state"]) == (task.id, "succeeded")


def test_the_logs_of_the_workers_are_quiet(theatre: Stage) -> None:
    for name in ("first", "second"):
        lines = (theatre.folder / f"{name}.err").read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if "worker ready" not in line] == []
