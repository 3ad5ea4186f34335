// Sends one task with nothing but amqplib (npm install amqplib), waits for the answer and prints it.
//
//     QUEUE_URL=amqp://guest:guest@127.0.0.1:5672/ node send.mjs

import { randomUUID } from "node:crypto";
import amqp from "amqplib";

const message = {
  algorithm: process.env.ALGORITHM ?? "language_detection",
  payload: JSON.parse(process.env.PAYLOAD ?? '{"text": "Bonjour tout le monde"}'),
};
// With an id of your own the message can be sent again after any error, and it is still one task.
const taskId = randomUUID();

const connection = await amqp.connect(process.env.QUEUE_URL);
const channel = await connection.createConfirmChannel();
channel.on("error", (error) => fail(`${error.message}; is there a controller, which declares the exchange?`));

// The broker passes answers on to whoever consumes from here on the same channel; no queue is made.
const replyTo = "amq.rabbitmq.reply-to";
let answered;
const answer = new Promise((resolve) => (answered = resolve));
await channel.consume(replyTo, answered, { noAck: true });
const properties = { messageId: taskId, replyTo, persistent: true, mandatory: true };
channel.publish("tasks", message.algorithm, Buffer.from(JSON.stringify(message)), properties);
await channel.waitForConfirms(); // it is durable now

const late = setTimeout(() => fail(`no answer within 60 s; the task waits, ask the gateway for ${taskId}`), 60_000);
const { content } = await answer;
clearTimeout(late);
console.log(content.toString());
await connection.close();

function fail(reason) {
  console.error(reason);
  process.exit(1);
}
