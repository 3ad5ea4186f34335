"""A program that makes one client, uses it, and forks: each child sends its own tasks and asks for its own results.

python forked_senders.py ALGORITHM CHILDREN TASKS GATEWAY_URL [QUEUE_URL]

Prints a line for each child: how many results were its own, and what else there was. `ALGORITHM` takes `text` and
returns it in upper case.
"""

import json
import os
import signal
import sys
import threading
from typing import Any

from producer import TaskClient

#: A child that takes longer hangs.
_CHILD_SECONDS = 60


def main(algorithm: str, children: int, tasks: int, gateway_url: str, queue_url: str) -> None:
    more: dict[str, Any] = {"queue_url": queue_url} if queue_url else {}
    with TaskClient(gateway_url, **more) as client:
        # Threads use it while the process forks: in the children whatever they hold is held by nobody.
        stop = threading.Event()
        threads = [threading.Thread(target=_use, args=(client, algorithm, stop)) for _ in range(2)]
        for thread in threads:
            thread.start()
        assert client.result(client.submit(algorithm, {"text": "parent"}), _CHILD_SECONDS) == "PARENT"
        started = [_fork(client, algorithm, number, tasks) for number in range(children)]
        stop.set()
        for thread in threads:
            thread.join()
        for pid, reader in started:
            with os.fdopen(reader) as pipe:
                told = pipe.read()
            _, status = os.waitpid(pid, 0)
            print(told or json.dumps({"own": 0, "others": [f"ended by signal {os.WTERMSIG(status)}"]}))
        assert client.result(client.submit(algorithm, {"text": "after"}), _CHILD_SECONDS) == "AFTER"


def _use(client: TaskClient, algorithm: str, stop: threading.Event) -> None:
    while not stop.is_set():
        client.result(client.submit(algorithm, {"text": "thread"}), _CHILD_SECONDS)


def _fork(client: TaskClient, algorithm: str, number: int, tasks: int) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    signal.alarm(_CHILD_SECONDS)
    own, others = 0, []
    for task in range(tasks):
        try:
            result = client.result(client.submit(algorithm, {"text": f"c{number}-{task}"}), _CHILD_SECONDS)
        except Exception as error:
            result = f"{type(error).__name__}: {error}"[:100]
        if result == f"C{number}-{task}":
            own += 1
        else:
            others.append(result)
    client.close()
    os.write(writer, json.dumps({"own": own, "others": others[:5]}).encode())
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5] if len(sys.argv) > 5 else "")
