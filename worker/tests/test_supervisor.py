"""Runners that follow their folders, with small stand-ins for their processes: who runs, since when, at which port."""

import asyncio
import contextlib
import io
import shutil
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from worker import supervisor
from worker.output import InstallProgress, Output
from worker.plan import Layout
from worker.ports import PortPool, is_free
from worker.processes import ManagedProcess
from worker.runners import RunnerFolder, Selection
from worker.state_file import RunnerState
from worker.supervisor import RunnerSet
from worker.versions import Interpreters, RunnerContext

Until = Callable[..., Coroutine[Any, Any, Any]]


@dataclass
class Stage:
    """A set of runners in a folder of its own."""

    folder: Path
    layout: Layout
    our_python: Interpreters
    output: Output
    terminal: io.StringIO
    until: Until
    scale: dict[str, int] = field(default_factory=dict)
    #: cleared, discovery lists nobody new
    lists: asyncio.Event = field(default_factory=asyncio.Event)
    ports: PortPool = field(init=False)
    runners: RunnerSet = field(init=False)

    def write(self, name: str, code: str) -> RunnerFolder:
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "runner_adapter.py").write_text(code)
        return RunnerFolder(name, path, 0)

    @contextlib.asynccontextmanager
    async def running(self, *names: str) -> AsyncGenerator["Stage", None]:
        """With these runners, ready, each with the code ``first``."""
        self.lists.set()
        settings = self.layout.settings
        self.ports = PortPool(settings.runner_ports_start, lambda port: is_free(settings.host, port))
        self.runners = RunnerSet(
            Selection(self.folder, frozenset(), self.scale),
            RunnerContext(
                self.layout,
                self.our_python,
                self.ports,
                self.output,
                InstallProgress(self.output),
                self._is_registered,
                lambda: None,
            ),
        )
        folders = [replace(self.write(name, "first"), position=n) for n, name in enumerate(names)]
        self.folder.mkdir(exist_ok=True)
        try:
            await self.runners.start(folders, await self.runners.prepare(folders))
            await self.until(lambda: all(process.is_ready for process in self.runners.processes), 30)
            yield self
        finally:
            await self.runners.stop()

    async def _is_registered(self, host: str, boot: str) -> bool:
        return self.lists.is_set()

    async def edited(self, name: str, code: str) -> None:
        self.write(name, code)
        await self.runners.follow()

    @property
    def only(self) -> ManagedProcess:
        (process,) = self.runners.processes
        return process

    def state(self, name: str) -> RunnerState:
        return self.runners.state()[name]

    async def until_told(self, text: str) -> None:
        await self.until(lambda: text in self.terminal.getvalue(), 30)

    async def until_quiet(self) -> None:
        """Nothing comes or goes any more."""
        await self.until(lambda: len(self.runners.every_process) == len(self.runners.processes), 30)


@pytest.fixture
def stage(
    tmp_path: Path,
    layout: Layout,
    our_python: Interpreters,
    output: Output,
    terminal: io.StringIO,
    until_async: Until,
    monkeypatch: pytest.MonkeyPatch,
) -> Stage:
    monkeypatch.setattr(supervisor, "GONE_SECONDS", 0.2)
    return Stage(tmp_path / "runners", layout, our_python, output, terminal, until_async)


def test_new_version_takes_over_beside_the_old_one_and_nothing_else_is_touched(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("nlp", "text"):
            nlp, text = stage.runners.processes
            before = (nlp.pid, text.pid)
            stage.lists.clear()
            await stage.edited("text", "second")
            await stage.until(lambda: len([p for p in stage.runners.every_process if p.is_ready]) == 3, 30)
            assert stage.runners.processes == [nlp, text]
            stage.lists.set()
            await stage.until_told("text is ready with its newest change")
            await stage.until_quiet()
            unchanged, new = stage.runners.processes
            assert unchanged.pid == before[0]
            assert new.pid not in (None, before[1])
            assert new.plan.url not in (nlp.plan.url, text.plan.url)
            assert Path(new.plan.environment["RUNNER_ADAPTER"]).read_text() == "second"
            assert text.pid is None
            assert stage.ports.take() == int(text.plan.url.rpartition(":")[2])
            assert len(list(stage.layout.code_folder.iterdir())) == 2

    asyncio.run(scenario())


def test_saving_without_a_change_does_nothing(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            before = stage.only.pid
            await stage.edited("text", "first")
            assert stage.runners.every_process == [stage.only]
            assert stage.only.pid == before
        assert "has changed" not in stage.terminal.getvalue()

    asyncio.run(scenario())


def test_change_of_an_included_file_is_a_change_of_the_runner(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            (stage.folder / "text" / "requirements.txt").write_text("-r ../../base.txt")
            (stage.folder.parent / "base.txt").write_text("six==1.16.0")
            await stage.runners.follow()
            await stage.until_told("text is ready with its newest change")
            await stage.until_quiet()
            before = stage.only.pid
            (stage.folder.parent / "base.txt").write_text("six==1.17.0")
            await stage.runners.follow()
            await stage.until(lambda: stage.only.pid not in (None, before), 30)

    asyncio.run(scenario())


def test_changed_variables_start_their_runner_anew_and_open_ones_are_refused(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("nlp", "text"):
            nlp = stage.runners.processes[0].pid
            file = stage.folder / "text" / ".env"
            file.write_text("TOKEN=hush")
            file.chmod(0o644)
            await stage.runners.follow()
            await stage.until(lambda: "chmod 600" in stage.state("text").problem, 30)
            file.chmod(0o600)
            await stage.runners.follow()
            await stage.until_told("text is ready with its newest change")
            await stage.until_quiet()
            assert [process.plan.environment.get("TOKEN") for process in stage.runners.processes] == [None, "hush"]
            assert stage.runners.processes[0].pid == nlp
        assert "hush" not in stage.terminal.getvalue()

    asyncio.run(scenario())


def test_copy_that_runs_finds_linked_packages_and_what_lies_beside_and_above_its_folder(stage: Stage) -> None:
    for name in ("common", "linked"):
        (stage.folder.parent / name).mkdir(parents=True)
        (stage.folder.parent / name / "words.py").write_text("x = 1")
    (stage.folder / "text").mkdir(parents=True)
    (stage.folder / "text" / "linked").symlink_to(stage.folder.parent / "linked")

    async def scenario() -> None:
        async with stage.running("text"):
            before = stage.only.pid
            (stage.folder.parent / "linked" / "words.py").write_text("x = 2")
            adapter = Path(stage.only.plan.environment["RUNNER_ADAPTER"]).resolve()
            assert not adapter.is_relative_to(stage.folder)
            assert (adapter.parent.parent.parent / "common" / "words.py").read_text() == "x = 1"
            assert (adapter.parent / "linked" / "words.py").read_text() == "x = 1"
            await stage.runners.follow()
            await stage.until(lambda: stage.only.pid not in (None, before), 30)

    asyncio.run(scenario())


def test_old_refusal_is_not_shown_while_the_mended_version_comes(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = asyncio.Event()
    ensure = stage.our_python.ensure

    async def slowly(runner: RunnerFolder, report: Any) -> Path:
        if "mended" in (runner.path / "runner_adapter.py").read_text():
            await installed.wait()
        return await ensure(runner, report)

    monkeypatch.setattr(stage.our_python, "ensure", slowly)

    async def scenario() -> None:
        async with stage.running("text"):
            await stage.edited("text", "broken")
            await stage.edited("shout", "broken")
            await stage.until(lambda: all("a mistake" in stage.state(name).problem for name in ("text", "shout")), 30)
            await stage.edited("text", "mended")
            await stage.edited("shout", "mended")
            await stage.until(lambda: "a mistake" not in stage.state("text").problem + stage.state("shout").problem)
            await stage.until(lambda: {stage.state(name).coming for name in ("text", "shout")} == {"installing"})
            assert "a mistake" not in stage.state("text").problem + stage.state("shout").problem
            # Taken back: what was true of it is true again.
            await stage.edited("shout", "broken")
            assert "a mistake" in stage.state("shout").problem
            assert stage.state("shout").coming == ""
            installed.set()
            await stage.until_told("text is ready with its newest change")
            assert stage.state("text").coming == ""

    asyncio.run(scenario())


def test_runner_whose_environment_has_to_be_made_keeps_no_other_from_starting(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = asyncio.Event()
    ensure = stage.our_python.ensure

    async def slowly(runner: RunnerFolder, report: Any) -> Path:
        if runner.name == "large":
            await made.wait()
        return await ensure(runner, report)

    monkeypatch.setattr(stage.our_python, "ensure", slowly)
    monkeypatch.setattr(
        stage.our_python, "is_complete", lambda runner: runner.name != "large" or made.is_set(), raising=False
    )

    async def scenario() -> None:
        async with asyncio.timeout(60), stage.running("large", "text"):
            assert [process.plan.name for process in stage.runners.processes] == ["text"]
            assert stage.runners.coming == ["large"]
            assert stage.runners.broken == {}
            assert stage.state("large").coming == "installing"
            made.set()
            await stage.until_told("large is ready after")
            assert {process.plan.name for process in stage.runners.processes} == {"large", "text"}
            large = next(process for process in stage.runners.processes if process.plan.name == "large")
            assert large.plan.url == stage.layout.url(stage.layout.settings.runner_ports_start)

    asyncio.run(scenario())


def test_runner_that_writes_modules_into_its_folder_settles_and_is_told_so(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            versions = set()
            for number in range(12):
                # As a handler does in its first call.
                (stage.folder / "text" / "made.py").write_text(f"at = {number}")
                await stage.runners.follow()
                await stage.until(lambda: len(stage.runners.every_process) == 1 and stage.only.is_ready, 30)
                versions.add(stage.only.pid)
            assert len(versions) < 9
            assert "made.py changed 6 times within a short time" in stage.state("text").problem
            await stage.edited("text", "second")
            await stage.until(lambda: stage.only.pid not in versions, 30)
        assert stage.terminal.getvalue().count("within a short time") == 1

    asyncio.run(scenario())


def test_broken_edit_changes_nothing_but_the_message_and_is_told_again_when_it_comes_again(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            before = stage.only.pid
            for times in (1, 2):
                await stage.edited("text", "broken")
                await stage.until(lambda: "a mistake" in stage.state("text").problem, 30)
                await stage.until_quiet()
                assert stage.terminal.getvalue().count("runner_adapter.py, line 1: a mistake") == times
                await stage.runners.follow()
                assert stage.runners.every_process == [stage.only]
                await stage.edited("text", "first")
                assert stage.state("text").problem == ""
            assert stage.only.pid == before
            assert Path(stage.only.plan.environment["RUNNER_ADAPTER"]).read_text() == "first"

    asyncio.run(scenario())


def test_further_edit_starts_over_with_the_newest_state(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            stage.lists.clear()
            await stage.edited("text", "second")
            await stage.until(lambda: len(stage.runners.every_process) == 2, 30)
            await stage.edited("text", "third, whose check is an endless check")
            await stage.edited("text", "fourth")
            stage.lists.set()
            await stage.until_told("text is ready with its newest change")
            await stage.until_quiet()
            assert Path(stage.only.plan.environment["RUNNER_ADAPTER"]).read_text() == "fourth"
        assert stage.terminal.getvalue().count("with its newest change") == 1

    asyncio.run(scenario())


def test_edit_that_is_taken_back_while_it_comes_leaves_the_old_one(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            before = stage.only.pid
            stage.lists.clear()
            await stage.edited("text", "second")
            await stage.until(lambda: len(stage.runners.every_process) == 2, 30)
            await stage.edited("text", "first")
            await stage.until_quiet()
            assert stage.only.pid == before

    asyncio.run(scenario())


def test_version_that_cannot_load_is_told_at_once_and_given_up_in_time(stage: Stage) -> None:
    stage.layout = replace(stage.layout, settings=stage.layout.settings.model_copy(update={"load_seconds": 2}))

    async def scenario() -> None:
        async with stage.running("text"):
            before = stage.only.pid
            stage.lists.clear()
            await stage.edited("text", "unready")
            await stage.until_told("cannot load yet, what ran before goes on:")
            assert "load_model() failed" in stage.state("text").problem
            await stage.until_told("text was not ready after 2 s")
            await stage.until_quiet()
            assert stage.only.pid == before

    asyncio.run(scenario())


def test_version_that_would_be_offered_without_a_part_is_given_up_before_it_takes_tasks(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            before = stage.only.pid
            await stage.edited("text", "unready")
            await stage.until_told("its newest change is not taken, what ran before goes on:")
            assert "load_model() failed" in stage.state("text").problem
            await stage.until_quiet()
            assert stage.only.pid == before

    asyncio.run(scenario())


def test_version_that_lacks_no_more_than_the_one_before_takes_over(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            pass
        stage.write("text", "unready")
        folder = RunnerFolder("text", stage.folder / "text", 0)
        await stage.runners.start([folder], await stage.runners.prepare([folder]))
        await stage.until(lambda: "load_model() failed" in stage.state("text").problem, 30)
        before = stage.only.pid
        stage.lists.clear()
        await stage.edited("text", "unready, and nothing of it works")
        await stage.until_told("its newest change cannot load yet, what ran before goes on:")
        stage.lists.set()
        await stage.edited("text", "unready, but otherwise changed")
        await stage.until(lambda: stage.only.pid not in (None, before), 30)
        await stage.until_quiet()
        await stage.until_told("text runs with its newest change: ")
        await stage.until(lambda: "load_model() failed" in stage.state("text").problem, 30)
        await stage.edited("text", "mended")
        await stage.until(lambda: stage.only.is_ready, 30)
        assert stage.state("text").problem == ""
        await stage.runners.stop()

    asyncio.run(scenario())


def test_version_that_ends_at_once_is_told_with_its_last_lines(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            await stage.edited("text", "fatal")
            await stage.until(lambda: "'y' has no type hint" in stage.state("text").problem, 30)
            await stage.until_quiet()
            assert stage.only.is_ready

    asyncio.run(scenario())


def test_runner_that_could_not_start_at_first_starts_when_it_is_mended(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            pass
        stage.write("text", "fatal")
        folder = RunnerFolder("text", stage.folder / "text", 0)
        await stage.runners.start([folder], await stage.runners.prepare([folder]))
        await stage.until(lambda: "'y' has no type hint" in stage.state("text").problem, 30)
        await stage.edited("text", "mended")
        await stage.until(lambda: stage.only.is_ready, 30)
        assert stage.state("text").problem == ""
        await stage.runners.stop()

    asyncio.run(scenario())


def test_new_folder_joins_and_a_broken_one_is_tried_again_at_its_next_change(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running():
            await stage.edited("shout", "broken")
            await stage.until_told("shout: is not started; mend this, and it is tried again:")
            assert stage.runners.processes == []
            assert "line 1: a mistake" in stage.runners.broken["shout"]
            await stage.edited("shout", "mended")
            await stage.until_told("shout is ready after")
            assert stage.runners.broken == {}
            assert stage.state("shout").processes[0].since is not None

    asyncio.run(scenario())


def test_broken_folder_that_goes_is_forgotten(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running():
            await stage.edited("shout", "broken")
            await stage.until(lambda: "shout" in stage.runners.broken, 30)
            shutil.rmtree(stage.folder / "shout")
            await stage.until_told("tried again")
            await stage.until_quiet()
            await stage.runners.follow()
            assert stage.runners.state() == {}

    asyncio.run(scenario())


def test_removed_folder_leaves_after_a_moment_and_comes_back(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            shutil.rmtree(stage.folder / "text")
            await stage.runners.follow()
            await stage.until_told("text: has left")
            await stage.runners.follow()
            assert stage.runners.state() == {}
            await stage.edited("text", "second")
            await stage.until_told("text: is new")
            await stage.until(lambda: stage.runners.processes and stage.only.is_ready, 30)

    asyncio.run(scenario())


def test_folder_that_is_only_being_replaced_does_not_leave(stage: Stage) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            before = stage.only.pid
            shutil.rmtree(stage.folder / "text")
            await stage.runners.follow()
            await stage.edited("text", "first")
            assert stage.only.pid == before
            shutil.rmtree(stage.folder)
            await stage.runners.follow()
            assert stage.only.pid == before
        assert "gone" not in stage.terminal.getvalue()

    asyncio.run(scenario())


def test_replicas_have_ports_of_their_own_and_are_replaced_together(stage: Stage) -> None:
    stage.scale = {"text": 2}

    async def scenario() -> None:
        async with stage.running("text"):
            old = stage.runners.processes
            assert [process.plan.name for process in old] == ["text-1", "text-2"]
            assert {process.plan.environment["RUNNER_NAME"] for process in old} == {"text"}
            await stage.edited("text", "second")
            await stage.until_told("text-2 is ready with its newest change")
            await stage.until_quiet()
            new = stage.runners.processes
            assert len({process.plan.url for process in (*old, *new)}) == 4
            assert [process.pid for process in old] == [None, None]

    asyncio.run(scenario())


def test_what_fails_unexpectedly_is_told_once_and_tried_again_at_the_next_change(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def path(runner: RunnerFolder) -> Path:
        if "unexpected" in (runner.path / "runner_adapter.py").read_text():
            raise RuntimeError("nobody thought of that")
        return Path(sys.executable)

    monkeypatch.setattr(stage.our_python, "path", path)

    async def scenario() -> None:
        async with stage.running("text"):
            before = stage.only.pid
            await stage.edited("text", "unexpected")
            await stage.until_told("nobody thought of that")
            await stage.runners.follow()
            await stage.until_quiet()
            assert stage.only.pid == before
            await stage.edited("text", "second")
            await stage.until_told("text is ready with its newest change")
        assert stage.terminal.getvalue().count("nobody thought of that") == 1

    asyncio.run(scenario())


def test_environment_of_a_version_on_its_way_stays_when_an_older_version_has_left(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    removals: list[str] = []
    monkeypatch.setattr(stage.our_python, "remove_older", lambda name, pythons: removals.append(name))

    async def scenario() -> None:
        async with stage.running("text"):
            await stage.edited("text", "slow")
            await stage.until_told("text is ready with its newest change")
            await stage.until_quiet()
            await stage.edited("text", "third")
            await stage.until(lambda: stage.terminal.getvalue().count("with its newest change") == 2, 30)
            removals.clear()
            await stage.edited("text", "fourth, whose check is an endless check")
            await stage.until_quiet()
            assert removals == []
            await stage.edited("text", "third")
            await stage.edited("text", "fifth")
            await stage.until(lambda: removals, 30)

    asyncio.run(scenario())


@pytest.mark.parametrize("moment", ["endless check", "slow to stop", "waits to be listed"])
def test_stop_in_the_middle_of_a_hand_over_leaves_nothing(stage: Stage, moment: str) -> None:
    async def scenario() -> None:
        async with stage.running("text"):
            if moment == "waits to be listed":
                stage.lists.clear()
            await stage.edited("text", moment)
            count = 1 if moment == "endless check" else 2
            await stage.until(lambda: len(stage.runners.every_process) >= count, 30)
            if moment == "slow to stop":
                await stage.edited("text", "third")
            everything = stage.runners.every_process
        assert [process.pid for process in everything] == [None] * len(everything)
        assert stage.runners.every_process == []

    asyncio.run(scenario())
