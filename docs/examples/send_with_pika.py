"""Sends one task with nothing but pika, waits for the answer and prints it.

QUEUE_URL=amqp://guest:guest@127.0.0.1:5672/ python send_with_pika.py
"""

import json
import os
import sys
import uuid

import pika

message = {
    "algorithm": os.environ.get("ALGORITHM", "language_detection"),
    "payload": json.loads(os.environ.get("PAYLOAD", '{"text": "Bonjour tout le monde"}')),
}
#: With an id of your own the message can be sent again after any error, and it is still one task.
task_id = str(uuid.uuid4())

with pika.BlockingConnection(pika.URLParameters(os.environ["QUEUE_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # basic_publish then returns when the message is durable, or raises
    answers = channel.queue_declare("", exclusive=True).method.queue
    properties = pika.BasicProperties(message_id=task_id, reply_to=answers, correlation_id="mine", delivery_mode=2)
    channel.basic_publish("", "tasks", json.dumps(message).encode(), properties, mandatory=True)

    for method, its_properties, body in channel.consume(answers, auto_ack=True, inactivity_timeout=60):
        if method is None:
            sys.exit(f"no answer within 60 s; the task waits, ask the gateway for {task_id}")
        if its_properties.correlation_id == "mine":
            print(body.decode())
            break
