"""What a person types, and what is said when it cannot be done."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.cli.ask import NoServer, ask
from proxy.cli.listen import CannotListen, bound, urls
from tests.providers import closed_port


def model(name: str, order: int) -> str:
    params = f"{{model: openai/{name}, mock_response: hi, order: {order}}}"
    return f"  - {{model_name: m, litellm_params: {params}}}\n"


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "litellm_config.yaml"
    file.write_text(f"model_list:\n{model('second', 2)}{model('first', 1)}")
    return str(file)


def said(capsys: pytest.CaptureFixture[str], *argv: str, code: int) -> str:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    captured = capsys.readouterr()
    assert ended.value.code == code
    return captured.out + captured.err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--port", "99999"), ("--port", "-1"), ("--port", "x"), ("--workers", "0")],
)
def test_a_number_out_of_range_is_refused(
    capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    text = said(capsys, "serve", f"{option}={value}", code=2)
    assert f"argument {option}: {value} is not a whole number from" in text


def test_a_port_in_use_is_one_sentence_with_the_address(
    capsys: pytest.CaptureFixture[str], config: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = said(capsys, "serve", "--config", config, "--port", str(port), code=1)
    expected = f"cannot listen on 127.0.0.1:{port}: the port is in use; --port takes another one\n"
    assert text == expected


def test_a_name_that_is_no_address_is_one_sentence() -> None:
    expected = pytest.raises(CannotListen, match=r"cannot listen on nowhere\.invalid:80: ")
    with expected, bound("nowhere.invalid", 80):
        pass


def test_an_address_of_another_machine_is_one_sentence() -> None:
    with (
        pytest.raises(CannotListen, match=r"cannot listen on 192\.0\.2\.1:\d+: "),
        bound("192.0.2.1", 0),
    ):
        pass


def test_any_free_port_is_told_once_it_is_bound() -> None:
    with bound("127.0.0.1", 0) as listeners:
        (port,) = ports(listeners)
        assert urls(listeners, tls=False) == [f"http://127.0.0.1:{port}"]
        assert urls(listeners, tls=True) == [f"https://127.0.0.1:{port}"]
    assert listeners[0].fileno() == -1


def test_localhost_is_both_loopback_addresses_at_one_port() -> None:
    with bound("localhost", 0) as listeners:
        (port,) = ports(listeners)
        expected = [f"http://127.0.0.1:{port}"]
        if has_ipv6():
            expected.append(f"http://[::1]:{port}")
        assert urls(listeners, tls=False) == expected


def test_a_port_that_is_taken_at_one_of_the_two_is_taken() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no ::1")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        expected = rf"cannot listen on \[::1\]:{port}: the port is in use"
        with pytest.raises(CannotListen, match=expected), bound("localhost", port):
            pass


def ports(listeners: list[socket.socket]) -> set[int]:
    return {listener.getsockname()[1] for listener in listeners}


def has_ipv6() -> bool:
    try:
        with bound("::1", 0):
            return True
    except CannotListen:
        return False


def test_a_certificate_that_is_not_there_is_one_sentence_with_its_name(
    capsys: pytest.CaptureFixture[str], config: str
) -> None:
    text = said(capsys, "serve", "--config", config, "--ssl-certfile", "none.pem", code=1)
    assert text == "--ssl-certfile: there is no file none.pem\n"


def test_the_help_of_serve_says_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(said(capsys, "serve", "--help", code=0).split())
    for default in ("litellm_config.yaml", "127.0.0.1", "4000", "1"):
        assert f"(default: {default})" in text
    assert "--url" not in text


def test_targets_are_shown_in_the_order_they_would_be_asked_in(
    capsys: pytest.CaptureFixture[str], config: str
) -> None:
    text = said(capsys, "check", "--config", config, code=0)
    assert text.index("openai/first") < text.index("openai/second")


def test_no_server_is_said_in_the_words_of_the_system() -> None:
    with closed_port() as port, pytest.raises(NoServer) as caught:
        ask(f"http://127.0.0.1:{port}", "/health/readiness", key=None)
    expected = "Connection refused; is `mobius serve` running?"
    assert str(caught.value) == f"no server answers at http://127.0.0.1:{port}: {expected}"
