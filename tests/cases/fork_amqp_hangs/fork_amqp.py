"""python fork_amqp.py GATEWAY_URL QUEUE_URL : a child of os.fork() uses the client that its parent made and used."""

import os
import signal
import sys

from producer import TaskClient

client = TaskClient(sys.argv[1], queue_url=sys.argv[2], patience_seconds=3)
print("parent:", client.result(client.submit("text", {"text": "before"}), 20), flush=True)
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    print("child:", client.result(client.submit("text", {"text": "child"}), 20), flush=True)
    os._exit(0)
_, status = os.waitpid(pid, 0)
print("child ended with", status, flush=True)
print("parent after:", client.result(client.submit("text", {"text": "after"}), 20), flush=True)
client.close()
