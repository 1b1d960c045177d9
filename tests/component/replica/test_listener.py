"""The sockets that a replica listens on."""

import socket

import pytest

from aixcoder_serving.replica.listener import listen


@pytest.mark.parametrize("host", ["127.0.0.1", None])
def test_no_token_waits_until_the_one_before_is_acknowledged(host: str | None) -> None:
    with listen(host, 0) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
