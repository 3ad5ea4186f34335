"""``async def`` runs share one event loop: what one of them does to it costs the others nothing."""

from collections.abc import Callable
from typing import Any

import pytest

ADAPTER = """
import asyncio, os, signal, sys, threading

OPTIONS = {"mixed": {"slots": 8}}


async def later(how, seconds):
    await asyncio.sleep(seconds)
    end(how)


def end(how):
    if how == "exit":
        raise SystemExit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "os._exit":
        os._exit(4)
    if how == "cancel all":
        for task in asyncio.all_tasks():
            task.cancel()
    if how == "stop loop":
        asyncio.get_running_loop().stop()
    if how == "close loop":
        asyncio.get_running_loop().close()
    if how == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
    if how == "SIGUSR1":
        os.kill(os.getpid(), signal.SIGUSR1)
    if how == "thread":
        thread = threading.Thread(target=sys.exit, args=(5,))
        thread.start()
        thread.join()


async def run_mixed(how: str, seconds: float, where: str = "gather") -> str:
    if how == "sleep":
        await asyncio.sleep(seconds)
        return how
    if where == "gather":
        await asyncio.gather(later(how, seconds))
    elif where == "callback":
        asyncio.get_running_loop().call_later(seconds, end, how)
        await asyncio.sleep(2 * seconds)
    elif where == "executor":
        await asyncio.to_thread(end, how)
    elif where == "left behind":
        KEPT.append(asyncio.create_task(later(how, seconds)))
    return "done"


KEPT = []
"""


@pytest.fixture(scope="module")
def runner(serve_adapter: Callable[..., Any]) -> Any:
    return serve_adapter(ADAPTER)


@pytest.mark.parametrize(
    ("how", "where", "words"),
    [
        ("exit", "gather", "SystemExit: 3"),
        ("interrupt", "gather", "KeyboardInterrupt"),
        ("exit", "executor", "SystemExit: 3"),
        ("os._exit", "gather", "exited with code 4"),
        ("SIGUSR1", "gather", "was killed by SIGUSR1"),
        ("cancel all", "gather", "CancelledError"),
        ("close loop", "gather", "RuntimeError"),
        ("stop loop", "gather", ""),
        ("SIGTERM", "gather", ""),
        ("thread", "gather", ""),
        ("exit", "callback", ""),
        ("exit", "left behind", ""),
        ("interrupt", "left behind", ""),
        ("os._exit", "left behind", ""),
        ("cancel all", "left behind", ""),
        ("stop loop", "left behind", ""),
    ],
)
def test_whatever_ends_a_loop_or_a_process_fails_only_the_run_that_did_it(
    runner: Any, item: Any, how: str, where: str, words: str
) -> None:
    payloads = [{"how": how, "seconds": 0.1, "where": where}] + [{"how": "sleep", "seconds": 0.4}] * 3
    name = f"{how}-{where}".replace(" ", "-")
    items = [item(f"{name}-{n}", payload) for n, payload in enumerate(payloads)]
    culprit, *others = runner.batch("mixed", items)
    assert [entry.get("result") for entry in others] == ["sleep"] * 3, others
    if words:
        assert culprit["state"] == "failed"
        assert words in culprit["error"]["message"]
    else:
        assert culprit["result"] == "done"


def test_a_run_that_is_cancelled_while_others_go_on_is_cancelled(runner: Any, item: Any) -> None:
    calls = [runner.later(runner.run, "mixed", {"how": "sleep", "seconds": s}, id=f"c{s}") for s in (30, 1)]
    for seconds in (30, 1):
        runner.until_state(f"c{seconds}", "running")
    runner.cancel("c30")
    runner.until_state("c30", "cancelled")
    assert calls[1].result().json() == {"result": "sleep"}
