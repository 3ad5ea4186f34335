"""Sends one task with nothing but pika, waits for the answer and prints it.

QUEUE_URL=amqp://guest:guest@127.0.0.1:5672/ python send_with_pika.py
"""

import json
import os
import sys
import uuid

import pika

algorithm = os.environ.get("ALGORITHM", "language_detection")
payload = json.loads(os.environ.get("PAYLOAD", '{"text": "Bonjour tout le monde"}'))
#: With an id of your own the message can be sent again after any error, and it is still one task.
task_id = str(uuid.uuid4())
#: The broker passes answers on to whoever consumes from here on the same channel; no queue is made.
ANSWERS = "amq.rabbitmq.reply-to"

with pika.BlockingConnection(pika.URLParameters(os.environ["QUEUE_URL"])) as connection:
    channel = connection.channel()
    channel.confirm_delivery()  # basic_publish then returns when the message is durable, or raises
    answers: list[bytes] = []
    channel.basic_consume(ANSWERS, lambda channel, method, properties, body: answers.append(body), auto_ack=True)
    properties = pika.BasicProperties(message_id=task_id, reply_to=ANSWERS, delivery_mode=2)
    message = json.dumps({"algorithm": algorithm, "payload": payload})
    channel.basic_publish("tasks", algorithm, message.encode(), properties, mandatory=True)

    connection.process_data_events(time_limit=60)  # returns when something has come
    if not answers:
        sys.exit(f"no answer within 60 s; the task waits, ask the gateway for {task_id}")
    print(answers[0].decode())
