import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from taskqueue.rabbitmq.frames import read_delivered

TEXT = st.text(max_size=20)
PROPERTIES = st.builds(
    BasicProperties,
    content_type=st.none() | TEXT,
    message_id=st.none() | TEXT,
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    headers=st.none() | st.dictionaries(TEXT, st.integers(-(2**31), 2**31 - 1) | TEXT | st.booleans(), max_size=3),
)


def content(channel, method, properties, *bodies):
    frames = [frame.Method(channel, method), frame.Header(channel, sum(map(len, bodies)), properties)]
    return [each.marshal() for each in (*frames, *(frame.Body(channel, body) for body in bodies))]


@given(
    st.integers(1, 2047),
    st.integers(1, 2**63),
    st.booleans(),
    TEXT,
    TEXT,
    PROPERTIES,
    st.lists(st.binary(min_size=1, max_size=40), max_size=3),
)
def test_message_is_read_as_pika_reads_its_frames(channel, tag, redelivered, exchange, key, properties, bodies):
    frames = content(channel, spec.Basic.Deliver("c1", tag, redelivered, exchange, key), properties, *bodies)
    data = b"other" + b"".join(frames) + b"more"
    found = read_delivered(data, 5)
    assert found is not None
    _, method = frame.decode_frame(frames[0])
    _, header = frame.decode_frame(frames[1])
    assert vars(found.method) == vars(method.method)
    assert vars(found.properties) == vars(header.properties)
    assert (found.channel, found.body, found.end) == (channel, b"".join(bodies), len(data) - 4)


def test_part_of_a_message_is_left_to_pika():
    deliver = spec.Basic.Deliver("c1", 7, False, "", "tasks.a")
    data = b"".join(content(3, deliver, BasicProperties(message_id="m"), b"first", b"second"))
    assert read_delivered(data, 0) is not None
    assert [length for length in range(len(data)) if read_delivered(data[:length], 0) is not None] == []


@pytest.mark.parametrize(
    "frames",
    [
        [frame.Method(1, spec.Basic.Ack(4)), frame.Heartbeat()],
        [frame.Heartbeat()],
        [frame.Method(1, spec.Basic.Deliver("c1", 7)), frame.Header(2, 1, BasicProperties()), frame.Body(1, b"x")],
        [frame.Method(1, spec.Basic.Deliver("c1", 7)), frame.Header(1, 1, BasicProperties()), frame.Body(2, b"x")],
        [frame.Method(1, spec.Basic.Return()), frame.Header(1, 1, BasicProperties()), frame.Body(1, b"x")],
        [frame.Method(1, spec.Basic.Deliver("c1", 7)), frame.Heartbeat(), frame.Header(1, 0, BasicProperties())],
    ],
)
def test_anything_but_one_message_is_left_to_pika(frames):
    for each in frames:
        if isinstance(each, frame.Method) and isinstance(each.method, spec.Basic.Deliver | spec.Basic.Return):
            each.method.exchange = each.method.routing_key = each.method.consumer_tag = "x"
            each.method.reply_text, each.method.reply_code = "x", 312
    assert read_delivered(b"".join(each.marshal() for each in frames), 0) is None


def test_headers_that_cannot_be_decoded_are_left_to_pika():
    deliver = spec.Basic.Deliver("c1", 7, False, "", "tasks.a")
    method, header, body = content(3, deliver, BasicProperties(headers={"key": "value"}), b"x")
    assert read_delivered(method + header.replace(b"keyS", b"key?") + body, 0) is None
