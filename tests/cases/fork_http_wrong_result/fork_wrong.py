"""python fork_wrong.py GATEWAY_URL TRIALS : two children of os.fork() ask for a task each, with their parent's client."""

import os
import signal
import sys
import time

from producer import TaskClient

setup = TaskClient(sys.argv[1])
ids = [setup.submit("echo", {"text": f"mine-{child}"}) for child in range(2)]
for task_id in ids:
    setup.result(task_id, 20)
setup.close()
counts = {"ok": 0, "wrong": 0, "hanging": 0, "errors": 0}
for _ in range(int(sys.argv[2])):
    client = TaskClient(sys.argv[1], patience_seconds=0.1)
    client.get(ids[0])
    start = time.time() + 0.02
    children = []
    for child in range(2):
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            while time.time() < start:
                pass
            try:
                told = client.result(ids[child], 8)
            except Exception as error:
                told = f"{type(error).__name__}: {str(error)[:90]}"
            os.write(writer, told.encode())
            os._exit(0)
        os.close(writer)
        children.append((pid, reader, child))
    for pid, reader, child in children:
        os.waitpid(pid, 0)
        told = os.read(reader, 1000).decode()
        os.close(reader)
        if told == f"mine-{child}":
            counts["ok"] += 1
        elif told.startswith("mine-"):
            counts["wrong"] += 1
        else:
            counts["errors" if told else "hanging"] += 1
            print(told)
    client.close()
print(counts)
