"""Virtual environments: made once, kept, made anew when something changes, never half-made; and how large they are."""

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from worker import environments
from worker.environments import COMPLETE, EnvironmentBuilder, RunnerlibSource, bytes_in, find_runnerlib, with_size
from worker.errors import EnvironmentBroken
from worker.runners import RunnerFolder

MakeRunner = Callable[..., RunnerFolder]
#: Installs nothing new: pip is in every virtual environment.
NOTHING = RunnerlibSource(arguments=("pip",), fingerprint="nothing")


class Steps(list[str]):
    def __call__(self, what: str) -> None:
        self.append(what)


def _ensure(builder: EnvironmentBuilder, runner: RunnerFolder, steps: Steps | None = None) -> Path:
    return asyncio.run(builder.ensure(runner, steps if steps is not None else Steps()))


def test_environment_is_made_once_and_found_again(tmp_path: Path, make_runner: MakeRunner) -> None:
    runner = make_runner("tiny", requirements="# nothing but a comment\n")
    steps = Steps()
    python = _ensure(EnvironmentBuilder(tmp_path / "venvs", NOTHING), runner, steps)
    prefix = subprocess.run([python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True)
    assert Path(prefix.stdout.strip()) == python.parent.parent
    assert steps[0] == "making a virtual environment"

    steps.clear()
    assert _ensure(EnvironmentBuilder(tmp_path / "venvs", NOTHING), runner, steps) == python
    assert steps == []


def test_other_requirements_or_runnerlib_or_python_mean_another_environment(
    tmp_path: Path, make_runner: MakeRunner
) -> None:
    builder = EnvironmentBuilder(tmp_path, NOTHING)
    paths = {
        builder.path(make_runner("tiny", requirements="")),
        builder.path(make_runner("tiny", requirements="one==1")),
        EnvironmentBuilder(tmp_path, replace(NOTHING, fingerprint="other")).path(make_runner("tiny")),
        EnvironmentBuilder(tmp_path, NOTHING, python="/other/python").path(make_runner("tiny")),
        EnvironmentBuilder(tmp_path, NOTHING, extra=["pytest"]).path(make_runner("tiny")),
    }
    assert len(paths) == 5


def test_what_the_requirements_refer_to_belongs_to_the_environment(tmp_path: Path, make_runner: MakeRunner) -> None:
    requirements = "-r base.txt\n./local\n./needle-1.0-py3-none-any.whl\n"
    builder, runner = EnvironmentBuilder(tmp_path, NOTHING), make_runner("tiny", requirements=requirements)
    paths = [builder.path(runner)]
    for file, text in (
        ("base.txt", "-c constraints.txt\nsix==1.16.0"),
        ("base.txt", "-c constraints.txt\nsix==1.17.0"),
        ("constraints.txt", "needle<2"),
        ("local/pyproject.toml", ""),
        ("local/src/table.json", "{}"),
        ("needle-1.0-py3-none-any.whl", "not read"),
    ):
        (runner.path / file).parent.mkdir(parents=True, exist_ok=True)
        (runner.path / file).write_text(text)
        paths.append(builder.path(runner))
    assert len(set(paths)) == len(paths)
    (runner.path / "local" / "build").mkdir()
    (runner.path / "local" / "build" / "left.py").write_text("")
    assert builder.path(runner) == paths[-1]


def test_requirements_in_another_encoding_are_left_to_pip(tmp_path: Path, make_runner: MakeRunner) -> None:
    builder, runner = EnvironmentBuilder(tmp_path, NOTHING), make_runner("tiny", requirements="one==1")
    paths = {builder.path(runner)}
    for text in ("one==1", "one==2"):
        runner.requirements.write_bytes(text.encode("utf-16"))
        paths.add(builder.path(runner))
    assert len(paths) == 3


def test_older_environments_of_a_runner_are_removed_but_for_what_is_in_use(
    tmp_path: Path, make_runner: MakeRunner
) -> None:
    builder = EnvironmentBuilder(tmp_path / "venvs", NOTHING)

    def made(requirements: str) -> Path:
        folder = builder.path(make_runner("tiny", requirements=requirements))
        (folder / "bin").mkdir(parents=True)
        return folder / "bin" / "python"

    shared, first, second = made(""), made("needle==1"), made("needle==2")
    neighbour = tmp_path / "venvs" / "tiny-neighbour-0123456789ab"
    shared_of_an_older_runnerlib = tmp_path / "venvs" / ".shared-0123456789ab"
    for folder in (neighbour, shared_of_an_older_runnerlib):
        folder.mkdir()
    builder.remove_older("tiny", [first, second])
    assert first.parent.exists()
    assert not shared_of_an_older_runnerlib.exists()
    builder.remove_older("tiny", [second])
    assert not first.parent.exists()
    for kept in (second.parent, shared.parent, neighbour):
        assert kept.exists()


def test_environment_of_the_last_refused_version_is_kept_until_a_newer_one_serves(
    tmp_path: Path, make_runner: MakeRunner
) -> None:
    builder = EnvironmentBuilder(tmp_path / "venvs", NOTHING)

    def made(requirements: str, second: int) -> Path:
        folder = builder.path(make_runner("tiny", requirements=requirements))
        (folder / "bin").mkdir(parents=True)
        (folder / COMPLETE).touch()
        os.utime(folder / COMPLETE, (second, second))
        return folder / "bin" / "python"

    older, serving, refused = made("needle==1", 1), made("needle==2", 2), made("needle==3", 3)
    builder.remove_older("tiny", [serving])
    assert [python.parent.exists() for python in (older, serving, refused)] == [False, True, True]
    refused_next = made("needle==4", 4)
    builder.remove_older("tiny", [serving])
    assert [python.parent.exists() for python in (serving, refused, refused_next)] == [True, False, True]
    builder.remove_older("tiny", [refused_next])
    assert [python.parent.exists() for python in (serving, refused_next)] == [False, True]


def test_runners_that_require_nothing_share_an_environment_made_once(tmp_path: Path, make_runner: MakeRunner) -> None:
    builder, steps = EnvironmentBuilder(tmp_path / "venvs", NOTHING), [Steps(), Steps()]

    async def scenario() -> list[Path]:
        runners = [make_runner("one"), make_runner("two", requirements="# nothing\n")]
        return await asyncio.gather(*map(builder.ensure, runners, steps))

    one, two = asyncio.run(scenario())
    assert one == two
    # Whichever was first made it.
    assert sorted("making a virtual environment" in each for each in steps) == [False, True]
    assert [] in steps
    assert builder.path(make_runner("one", requirements="needle==1")).name.startswith("one-")


def test_requirements_that_change_while_they_are_installed_do_not_count(
    tmp_path: Path, make_runner: MakeRunner, make_wheel: Callable[..., Path]
) -> None:
    first, second = str(make_wheel("needle", "1.0")), str(make_wheel("needle", "2.0"))
    runner = make_runner("hasty", requirements=first)
    source = RunnerlibSource((str(make_wheel("plugplay_runnerlib", "1.0")),), "wheel")
    builder = EnvironmentBuilder(tmp_path / "venvs", source)

    def edit(what: str) -> None:
        runner.requirements.write_text(second)

    with pytest.raises(EnvironmentBroken, match="changed while it was being installed"):
        asyncio.run(builder.ensure(runner, edit))
    assert not any((tmp_path / "venvs").glob("hasty-*"))


def test_package_that_writes_into_its_own_folder_when_it_is_built_is_installed(
    tmp_path: Path, make_runner: MakeRunner, make_wheel: Callable[..., Path]
) -> None:
    runner = make_runner("stamping", requirements=f"--find-links ./local\n{make_wheel('needle', '1.0')}")
    (runner.path / "local").mkdir()
    source = RunnerlibSource((str(make_wheel("plugplay_runnerlib", "1.0")),), "wheel")
    builder = EnvironmentBuilder(tmp_path / "venvs", source)
    before = builder.path(runner)

    def stamp(what: str) -> None:
        (runner.path / "local" / "stamp.py").write_text(what)

    assert asyncio.run(builder.ensure(runner, stamp)) == before / "bin" / "python"
    assert (before / COMPLETE).exists()


@pytest.mark.timeout(10)
def test_requirements_that_are_a_pipe_are_not_waited_for(tmp_path: Path, make_runner: MakeRunner) -> None:
    runner = make_runner("tiny")
    runner.requirements.unlink()
    os.mkfifo(runner.requirements)
    assert EnvironmentBuilder(tmp_path, NOTHING).path(runner).name.startswith(".shared")


def test_requirement_that_does_not_exist_is_told_with_pips_last_lines(tmp_path: Path, make_runner: MakeRunner) -> None:
    runner = make_runner("wrong", requirements="./no-such-package-1.0-py3-none-any.whl\n")
    builder = EnvironmentBuilder(tmp_path / "venvs", NOTHING)
    with pytest.raises(EnvironmentBroken) as error:
        _ensure(builder, runner)
    assert str(error.value).startswith(f"{runner.requirements} could not be installed:\n")
    assert "no-such-package" in str(error.value)
    assert not builder.path(runner).exists()


def test_pins_that_break_runnerlib_are_told(
    tmp_path: Path, make_runner: MakeRunner, make_wheel: Callable[..., Path]
) -> None:
    wheels = [str(make_wheel("plugplay_runnerlib", "1.0", "needle>=2")), str(make_wheel("needle", "2.0"))]
    runner = make_runner("old", requirements=str(make_wheel("needle", "1.0")))
    with pytest.raises(EnvironmentBroken) as error:
        _ensure(EnvironmentBuilder(tmp_path / "venvs", RunnerlibSource(tuple(wheels), "wheels")), runner)
    assert "runnerlib needs needle>=2, the requirements bring 1.0" in str(error.value)


def test_interrupted_making_leaves_nothing(
    tmp_path: Path, make_runner: MakeRunner, until_async: Callable[..., object]
) -> None:
    pid_file = tmp_path / "pid"
    endless = tmp_path / "python"
    endless.write_text(
        f'#!/bin/sh\nmkdir -p "$4"\necho $$ > "{pid_file}.new"\nmv "{pid_file}.new" "{pid_file}"\nsleep 600\n'
    )
    endless.chmod(0o755)
    runner = make_runner("tiny")

    async def scenario() -> None:
        builder = EnvironmentBuilder(tmp_path / "venvs", NOTHING, python=str(endless))
        making = asyncio.create_task(builder.ensure(runner, Steps()))
        await until_async(pid_file.exists)
        assert builder.path(runner).exists()
        making.cancel()
        await asyncio.wait([making], timeout=30)
        assert making.cancelled()
        assert not builder.path(runner).exists()
        # Killed it is; who takes its last state may be uv, which is gone, or the system.
        await until_async(lambda: _is_dead(int(pid_file.read_text())))

    asyncio.run(scenario())


def _is_dead(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_pip_unpacks_in_the_environment_s_own_folder(
    tmp_path: Path, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell = tmp_path / "tell"
    (tell / "setup.py").parent.mkdir()
    (tell / "setup.py").write_text("import tempfile; raise SystemExit(f'unpacked below {tempfile.gettempdir()}')")
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")
    runner = make_runner("big", requirements=f"{tell}\n")
    builder = EnvironmentBuilder(tmp_path / "venvs", NOTHING)
    with pytest.raises(EnvironmentBroken) as error:
        _ensure(builder, runner)
    assert f"unpacked below {builder.path(runner) / 'tmp'}" in str(error.value)
    python = _ensure(builder, make_runner("small"))
    assert not (python.parent.parent / "tmp").exists()


def test_half_made_environment_of_a_killed_worker_is_made_anew(tmp_path: Path, make_runner: MakeRunner) -> None:
    runner = make_runner("tiny")
    builder = EnvironmentBuilder(tmp_path / "venvs", NOTHING)
    folder = builder.path(runner)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text("half")
    assert not builder.is_complete(runner)
    python = _ensure(builder, runner)
    subprocess.run([python, "-c", ""], check=True)
    assert (folder / COMPLETE).exists()


def test_runners_folder_does_not_shadow_what_pip_imports(tmp_path: Path, make_runner: MakeRunner) -> None:
    runner = make_runner("shadow")
    (runner.path / "json.py").write_text("raise SystemExit('shadowed')")
    _ensure(EnvironmentBuilder(tmp_path / "venvs", NOTHING), runner)


def test_real_environment_serves_runnerlib_from_the_checkout(
    tmp_path: Path, venvs: Path, make_runner: MakeRunner
) -> None:
    source = find_runnerlib()
    python = _ensure(EnvironmentBuilder(venvs, source), make_runner("tiny"))
    command = [python, "-c", "import runnerlib, pydantic; print(runnerlib.__file__)"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout.strip()
    if source.arguments[0] == "--editable":
        assert Path(found).is_relative_to(source.arguments[1])
    assert sys.prefix not in str(python)


@pytest.mark.parametrize("with_uv", [True, False])
def test_runnerlib_that_came_from_no_checkout_is_packed_again_and_asked_of_no_index(
    with_uv: bool,
    tmp_path: Path,
    make_runner: MakeRunner,
    make_wheel: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--target", str(installed)]
    subprocess.run([*pip, make_wheel("plugplay_runnerlib", "1.0")], check=True)
    for name in ("PIP_INDEX_URL", "UV_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/nothing-listens")
    [distribution] = environments.metadata.distributions(name="plugplay-runnerlib", path=[str(installed)])
    monkeypatch.setattr(environments.metadata, "distribution", lambda name: distribution)
    if not with_uv:
        monkeypatch.setattr(environments, "find_uv", lambda: None)
    source = find_runnerlib()
    assert source.arguments == ()
    python = _ensure(EnvironmentBuilder(tmp_path / "venvs", source), make_runner("tiny"))
    command = [python, "-c", "from importlib.metadata import version; print(version('plugplay-runnerlib'))"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "1.0\n"


@pytest.mark.parametrize("with_uv", [True, False])
def test_locked_file_is_installed_and_another_in_its_place_is_refused_by_uv(
    with_uv: bool,
    tmp_path: Path,
    make_runner: MakeRunner,
    make_wheel: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wheel, lock = make_wheel("needle", "1.0"), tmp_path / "requirements.lock"
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    if not with_uv:
        monkeypatch.setattr(environments, "find_uv", lambda: None)
    right = hashlib.sha256(wheel.read_bytes()).hexdigest()
    for name, digest in (("right", right), ("wrong", "0" * 64)):
        lock.write_text(f"# a lock\nneedle==1.0 ; sys_platform != 'nothing' \\\n    --hash=sha256:{digest}\n")
        source = RunnerlibSource(arguments=("needle",), fingerprint=name, constraints=(lock,))
        builder = EnvironmentBuilder(tmp_path / "venvs", source)
        if name == "wrong" and with_uv:
            with pytest.raises(EnvironmentBroken, match="Hash mismatch"):
                _ensure(builder, make_runner("tiny"))
        else:
            found = [
                _ensure(builder, make_runner("tiny")),
                "-c",
                "from importlib.metadata import version as v; v('needle')",
            ]
            subprocess.run(found, check=True)


@pytest.mark.parametrize("uv", ["nothing", "/bin/false", "/dev/null"])
def test_pip_makes_the_environment_when_uv_is_missing_or_fails(
    uv: str, tmp_path: Path, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "find_uv", lambda: None if uv == "nothing" else Path(uv))
    steps = Steps()
    python = _ensure(EnvironmentBuilder(tmp_path / "venvs", NOTHING), make_runner("tiny"), steps)
    subprocess.run([python, "-c", "import pip"], check=True)
    assert ("uv cannot do it; trying again with pip" in steps) == (uv != "nothing")


@pytest.mark.parametrize(
    "line", ["--pre", "--index-url http://127.0.0.1:1/simple", "pip --hash=sha256:00", "-f /wheels"]
)
def test_requirements_that_uv_reads_otherwise_are_left_to_pip(
    line: str, tmp_path: Path, make_runner: MakeRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []

    async def note(command: list[str], **_: object) -> None:
        ran.append(" ".join(command))

    monkeypatch.setattr(environments, "_run", note)
    runner = make_runner("tiny", requirements=f"{line}\n")
    _ensure(EnvironmentBuilder(tmp_path / "venvs", NOTHING), runner)
    (with_requirements,) = [command for command in ran if "--requirement" in command]
    assert "-m pip install" in with_requirements


def test_the_last_step_is_told_again_with_the_size(tmp_path: Path, until_async: Callable[..., object]) -> None:
    told: list[str] = []

    async def scenario() -> None:
        async with with_size(tmp_path / "new", told.append, seconds=0.01) as tell:
            tell("unpacking")
            await until_async(lambda: "0 MB on disk: unpacking" in told)
            (tmp_path / "new").mkdir()
            (tmp_path / "new" / "file").write_bytes(bytes(3_000_000))
            await until_async(lambda: told[-1] == "3 MB on disk: unpacking")
        count = len(told)
        await asyncio.sleep(0.05)
        assert len(told) == count

    asyncio.run(scenario())
    assert told[0] == "unpacking"


def test_links_do_not_count_as_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(5000))
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert 5000 <= bytes_in(tmp_path) < 6000
