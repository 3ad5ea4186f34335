"""The whole environment on one machine: worker up starts it, worker demo shows it, worker new runner adds to it."""

import asyncio
import contextlib
import errno
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from producer.printable import printable_json
from taskqueue.addresses import check_addresses, is_embedded, queue_url_from
from taskqueue.errors import UnsuitableAddress
from worker.conformance.command import conformance
from worker.demo import Demo, Sample, allowing_loopback, has_pictures, pictures_served
from worker.environment_client import Discovery, EnvironmentClient, take_over
from worker.environment_secrets import open_secrets, service_token
from worker.environments import EnvironmentBuilder, find_runnerlib
from worker.errors import BadName, NotRunning, UnsuitableServers, WorkerError
from worker.new_runner import make_runner, next_steps
from worker.output import Output, standard_output
from worker.plan import Layout
from worker.runner_commands import own_python, replace_process, test_runners
from worker.runners import RunnerFolder, list_runners, scale_without, select, variables_of
from worker.settings import WorkerSettings, inherited_environment, read_settings
from worker.state_file import read_state
from worker.status import schemas_of, show_status, watch_status
from worker.up import Environment, Interrupted, run_environment

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
T = TypeVar("T")

RunnersOption = Annotated[
    Path | None, typer.Option("--runners", metavar="DIR", help="Folder of runner folders. [RUNNERS_FOLDER, runners]")
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Database and virtual environments. [DATA_FOLDER, .plugplay]"),
]
QueueOption = Annotated[
    str | None,
    typer.Option("--queue-url", metavar="URL", help="RabbitMQ, amqp://USER:PASSWORD@HOST/VHOST. [QUEUE_URL]"),
]
DatabaseOption = Annotated[
    str | None,
    typer.Option(
        "--database-url", metavar="URL", help="PostgreSQL, postgresql://USER:PASSWORD@HOST/DATABASE. [DATABASE_URL]"
    ),
]
OnlyOption = Annotated[
    list[str] | None, typer.Option("--only", metavar="NAMES", help="Only these runners: text,nlp; may be repeated.")
]
ScaleOption = Annotated[
    list[str] | None,
    typer.Option("--scale", metavar="NAME=N", help="Processes of runners: nlp=2,text=3; 0 starts none. [SCALE]"),
]
ReloadOption = Annotated[
    bool | None,
    typer.Option(
        "--reload/--no-reload",
        help="Whether changed runners are started anew, new ones join, removed ones leave. [RELOAD, yes]",
        show_default=False,
    ),
]
ImagesOption = Annotated[
    bool,
    typer.Option("--images", help="Also the runners that bring pictures to show, which are large, and real images."),
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"worker {metadata.version('plugplay-worker')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """The whole environment on one machine."""


@app.command()
def up(
    runners: RunnersOption = None,
    data: DataOption = None,
    only: OnlyOption = None,
    scale: ScaleOption = None,
    reload: ReloadOption = None,
    queue_url: QueueOption = None,
    database_url: DatabaseOption = None,
) -> None:
    """Start discovery, controller, gateway and every runner; Ctrl-C stops them in order.

    Queue and store are one SQLite file, or with both URLs RabbitMQ and PostgreSQL.
    """
    settings = read_settings(runners, data, scale, reload, queue_url, database_url)
    output = _output(settings)

    async def body(environment: Environment) -> None:
        names = ", ".join(environment.runners.coming)
        coming = f"; what is still being installed follows: {names}" if names else ""
        output.say(f"everything is started{coming}; the gateway is {environment.layout.gateway_url}/docs, Ctrl-C stops")
        await asyncio.Event().wait()

    _run_environment(settings, _names(only), output, body)


@app.command()
def demo(
    runners: RunnersOption = None,
    data: DataOption = None,
    only: OnlyOption = None,
    scale: ScaleOption = None,
    reload: ReloadOption = None,
    queue_url: QueueOption = None,
    database_url: DatabaseOption = None,
    images: ImagesOption = False,
    once: Annotated[bool, typer.Option("--once", help="Stop everything when the tasks are done.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Show the processes' informational lines too.")] = False,
) -> None:
    """Start everything, send sample tasks for every algorithm through the queue, show the results.

    Runners that bring pictures to show are started with --images, or when --scale, SCALE or --only names them.
    """
    settings = read_settings(runners, data, scale, reload, queue_url, database_url)
    if not verbose and "log_level" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_level": "WARNING"})
    output = _output(settings, for_people=True)
    names = _names(only)
    with_pictures = [one.name for one in list_runners(settings.runners_folder) if has_pictures(one)]
    if not images:
        unasked = [name for name in with_pictures if name not in names]
        settings = settings.model_copy(update={"scale": scale_without(unasked, settings.scale)})
    variables = allowing_loopback(with_pictures, inherited_environment()) if images else {}

    async def body(environment: Environment) -> bool:
        return await _demonstrate(environment, output, images=images, once=once)

    if not _run_environment(settings, names, output, body, variables):
        raise typer.Exit(1)


async def _demonstrate(environment: Environment, output: Output, *, images: bool, once: bool) -> bool:
    """Returns True if everything was as expected."""
    served: contextlib.AbstractAsyncContextManager[list[Sample]] = contextlib.nullcontext([])
    if images:
        served = pictures_served(environment.runners.processes, environment.layout.data, output)
    async with served as pictures:
        succeeded = await Demo(environment.layout, environment.runners, output, pictures).run()
        if not once:
            output.say("everything goes on running; Ctrl-C stops")
            await asyncio.Event().wait()
    return succeeded


@app.command()
def status(
    data: DataOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again each second; Ctrl-C ends.")] = False,
) -> None:
    """Runners, algorithms, and how many tasks wait, run and failed. Exits with 1 when nothing runs."""
    settings = read_settings(data_folder=data)
    output = Output(sys.stdout)
    show = watch_status if watch else show_status
    with contextlib.suppress(KeyboardInterrupt):
        _run(show(settings.data_folder, output, as_json=as_json))


@app.command()
def schemas(data: DataOption = None) -> None:
    """The JSON Schemas of every algorithm of the environment, as one JSON object."""
    settings = read_settings(data_folder=data)

    async def look() -> None:
        state = read_state(settings.data_folder)
        async with EnvironmentClient(state.gateway, state.discovery, settings.data_folder) as client:
            typer.echo(printable_json(schemas_of(await client.catalogue()), indent=2))

    _run(look())


@app.command("take-over")
def take_over_algorithm(
    algorithm: Annotated[str, typer.Argument(help="An algorithm that more than one runner offers.")],
    runner: Annotated[str, typer.Argument(help="Name of the runner that gets it from now on.")],
    data: DataOption = None,
) -> None:
    """Give an algorithm to another runner that offers it; the one that owned it gets no more tasks of it."""
    settings = read_settings(data_folder=data)

    async def give() -> None:
        url = read_state(settings.data_folder).discovery
        await take_over(Discovery(url, service_token(settings.data_folder)), algorithm, runner)

    _run(give())
    typer.echo(f"{algorithm} belongs to {runner}")


@app.command("test-runners")
def run_runner_tests(runners: RunnersOption = None, data: DataOption = None, only: OnlyOption = None) -> None:
    """Run each runner's own tests with pytest, in a virtual environment made from its requirements."""
    settings = read_settings(runners, data)
    output = _output(settings, for_people=True)
    if not _run(test_runners(settings, _names(only), output), output):
        raise typer.Exit(1)


app.command()(conformance)

#: Options that are not ours are passed on.
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The runner's folder in the folder of runners.")]


@app.command(context_settings=_PASS_ON)
def check(context: typer.Context, name: NameArgument, runners: RunnersOption = None, data: DataOption = None) -> None:
    """Say what of a runner is untyped, unserialisable or misspelt, in its own Python; --self-test loads it, too."""
    _in_runner(name, runners, data, "-P", "-m", "runnerlib", "check", *context.args)


@app.command(context_settings=_PASS_ON)
def run(
    context: typer.Context,
    name: NameArgument,
    algorithm: Annotated[str, typer.Argument(help="One of its algorithms.")],
    payload: Annotated[str, typer.Argument(metavar="JSON", help="""As '{"text": "abc"}'; - reads standard input.""")],
    runners: RunnersOption = None,
    data: DataOption = None,
) -> None:
    """Call one algorithm of a runner in its own Python, without an environment around it."""
    _in_runner(name, runners, data, "-P", "-m", "runnerlib", "run", algorithm, payload, *context.args)


@app.command()
def shell(name: NameArgument, runners: RunnersOption = None, data: DataOption = None) -> None:
    """Open a Python prompt with a runner's functions, provided names filled in."""
    _in_runner(name, runners, data, "-P", "-m", "runnerlib", "shell")


@app.command(context_settings=_PASS_ON)
def python(context: typer.Context, name: NameArgument, runners: RunnersOption = None, data: DataOption = None) -> None:
    """Run a runner's own Python in its folder: worker python NAME -- -m pip list"""
    _in_runner(name, runners, data, *context.args)


def _in_runner(name: str, runners: Path | None, data: Path | None, *arguments: str) -> None:
    settings = read_settings(runners, data)

    async def prepared() -> tuple[RunnerFolder, Path, dict[str, str]]:
        runner, python = await own_python(settings, name, Output(sys.stderr))
        return runner, python, variables_of(runner)

    replace_process(*_run(prepared()), arguments)


new = typer.Typer(help="Make something new.", no_args_is_help=True)
app.add_typer(new, name="new")


@new.command("runner")
def new_runner(
    name: Annotated[str, typer.Argument(help="Small letters, digits, - and _; its folder and first algorithm.")],
    runners: RunnersOption = None,
    data: DataOption = None,
) -> None:
    """Make a runner with one algorithm: a folder that passes its own tests. An environment that runs takes it up."""
    settings = read_settings(runners, data)
    try:
        folder = make_runner(settings.runners_folder.resolve(), name)
    except (BadName, OSError) as error:
        typer.echo(str(error) if isinstance(error, BadName) else f"the runner could not be made: {error}", err=True)
        raise typer.Exit(1) from None
    is_followed, gateway = False, Layout(settings, Path(), "json", {}).gateway_url
    with contextlib.suppress(NotRunning):
        state = read_state(settings.data_folder)
        is_followed, gateway = state.follows == folder.parent, state.gateway
    typer.echo(next_steps(folder, name, is_followed=is_followed, gateway=gateway))


def _run_environment(
    settings: WorkerSettings,
    only: Sequence[str],
    output: Output,
    body: Callable[[Environment], Awaitable[T]],
    runner_variables: Mapping[str, Mapping[str, str]] | None = None,
) -> T:
    async def live() -> T:
        queue_url = _queue_url(settings)
        data = settings.data_folder.resolve()
        selection = select(settings.runners_folder, settings.scale, only)
        log_format = "json" if output.as_json else "pretty"
        secrets = open_secrets(settings, data, os.environ, output.say, show=not output.as_json)
        layout = Layout(settings, data, log_format, inherited_environment(), queue_url, runner_variables or {}, secrets)
        builder = EnvironmentBuilder(data / "venvs", find_runnerlib())
        return await run_environment(Environment(layout, selection, builder, output), body, output)

    return _run(live(), output)


def _queue_url(settings: WorkerSettings) -> str:
    """Where the broker is; empty for the embedded queue. Raises UnsuitableServers if the two URLs do not fit."""
    try:
        url = queue_url_from(settings.queue_url, settings.rabbitmq_host, settings.queue_name)
        if not is_embedded(url, settings.database_url):
            check_addresses(url, settings.database_url)
    except UnsuitableAddress as error:
        raise UnsuitableServers(str(error)) from None
    return url


def _run(work: Coroutine[Any, Any, T], output: Output | None = None) -> T:
    """Runs a command to its end; errors become a sentence and exit code 1."""
    try:
        return asyncio.run(work)
    except WorkerError as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    except Interrupted as stopped:
        raise typer.Exit(stopped.exit_code) from None
    except OSError as error:
        if error.errno == errno.EPIPE:  # such as `| head`; typer ends without a word
            raise
        typer.echo(f"{error.filename or 'the output'}: {error.strerror or error}", err=True)
        raise typer.Exit(1) from None
    finally:
        if output is not None:
            output.drain()


def _output(settings: WorkerSettings, *, for_people: bool = False) -> Output:
    wanted = settings.log_format
    as_json = wanted == "json" or (wanted == "auto" and not for_people and not sys.stdout.isatty())
    return Output(standard_output(as_json=as_json), as_json=as_json)


def _names(only: Sequence[str] | None) -> list[str]:
    return [name.strip() for word in only or () for name in word.split(",") if name.strip()]
