"""A server on a port of its own, and clients that ask nothing, half a thing, or very slowly."""

import logging
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager, suppress

import pytest
import uvicorn

from reprism.service.connections import Seldom, bounded_protocol, fitting_connections

PATIENCE = 300  # seconds until what does not come about fails
begun = []  # requests whose headers were there
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def app(scope, receive, send):
    """Answers "here" to anything, once its body is there."""
    begun.append(scope)
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"here"})


@contextmanager
def served(most=100, header_seconds=PATIENCE):
    """The port of a server with these bounds."""
    with socket.socket() as listening, ExitStack() as stack:
        listening.bind(("127.0.0.1", 0))
        protocol = bounded_protocol(most, header_seconds)
        config = uvicorn.Config(app, http=protocol, log_level="critical", lifespan="off", timeout_keep_alive=PATIENCE)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        stack.callback(thread.join)
        stack.callback(lambda: setattr(server, "should_exit", True))
        while not server.started:
            time.sleep(0.005)
        yield listening.getsockname()[1]


@pytest.fixture
def connect():
    with ExitStack() as stack:
        yield lambda port: stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))


def is_closed(connection):
    """Wait for it, or fail."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def answered(connection, request=REQUEST):
    connection.sendall(request)
    got = b""
    while not got.endswith(b"here"):
        more = connection.recv(1000)
        assert more, "it was closed"
        got += more
    return True


def half_sent(port, connect, count):
    """Connections whose requests the server has begun, and which owe a byte of the body."""
    before, connections = len(begun), [connect(port) for _ in range(count)]
    for connection in connections:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n")
    end = time.monotonic() + PATIENCE
    while len(begun) < before + count:
        assert time.monotonic() < end
        time.sleep(0.005)
    return connections


def test_who_asks_nothing_or_half_a_thing_is_closed(connect):
    with served(header_seconds=0.3) as port:
        silent, half, again = connect(port), connect(port), connect(port)
        half.sendall(REQUEST[:10])
        assert answered(again)
        again.sendall(REQUEST[:10])  # the second request of a connection that is kept
        assert is_closed(silent)
        assert is_closed(half)
        assert is_closed(again)


def test_headers_that_drip_in_are_late_too(connect):
    with served(header_seconds=0.5) as port:
        connection, end = connect(port), time.monotonic() + PATIENCE
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionResetError, BrokenPipeError):
            while time.monotonic() < end:  # never ends by itself: each line is a header
                connection.sendall(b"X: y\r\n")
                time.sleep(0.02)
            pytest.fail("it was never closed")


def test_a_body_may_take_longer_than_headers(connect):
    """How long a body may take, the endpoint decides."""
    with served(header_seconds=0.2) as port:
        connection = connect(port)
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n1")
        time.sleep(0.6)
        assert answered(connection, b"2")
        connection.sendall(REQUEST[:10])
        assert is_closed(connection)


def test_beyond_the_bound_who_waited_longest_makes_room(connect):
    with served(most=3) as port:
        (busy,) = half_sent(port, connect, 1)
        first, second = connect(port), connect(port)
        assert answered(first)
        assert answered(second)
        third = connect(port)
        assert answered(third)
        assert is_closed(first)
        assert answered(second)
        assert answered(busy, b"1")


def test_where_all_are_busy_a_new_one_is_closed(connect):
    with served(most=2) as port:
        busy = half_sent(port, connect, 2)
        assert is_closed(connect(port))
        assert all(answered(connection, b"1") for connection in busy)


def test_very_many_silent_connections_stop_nobody(connect):
    with served(most=20) as port:
        for _ in range(200):
            connect(port)
        assert answered(connect(port))


def test_connections_fit_the_limit_of_open_files():
    pytest.importorskip("resource")
    code = (
        "import resource as r; from reprism.service.connections import fitting_connections as fit\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 5000)); print(fit(512), r.getrlimit(r.RLIMIT_NOFILE)[0])\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 600)); print(fit(512), r.getrlimit(r.RLIMIT_NOFILE)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "512 1536\n300 600\n"
    assert fitting_connections(1) == 1


def test_the_same_line_is_logged_seldom_and_the_rest_is_counted(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    seldom, lines = Seldom(most=3, seconds=60), []

    def log(message, *arguments):
        record = logging.LogRecord("asyncio", logging.ERROR, "", 0, message, arguments, None)
        if seldom.filter(record):
            lines.append(record.getMessage())

    for number in range(1000):
        log("accept failed: %d", number)
    log("another")
    assert lines == ["accept failed: 0", "accept failed: 1", "accept failed: 2", "another"]
    now[0] = 61
    log("accept failed: %d", 7)
    assert lines[-1] == "accept failed: 7 (997 more such lines were left out)"
    for number in range(5000):
        log(f"different {number}")
    assert len(lines) == 5005
    assert len(seldom._seen) <= 1001
