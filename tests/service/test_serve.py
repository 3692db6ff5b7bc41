"""``reprism serve``: a process of its own, spoken to over the network."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from contextlib import contextmanager, suppress

import httpx2
import pytest
import trustme
import uvicorn

from reprism.cli import main
from reprism.cli.serve import _announcement
from reprism.gallery.table import Gallery
from reprism.service.api import create_app

TOKEN = "a-token-of-the-test"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(f'[alice]\ntoken = "{TOKEN}"\nscopes = ["search", "write", "erase"]\n')
    path.chmod(0o600)
    return path


@pytest.fixture
def place(gallery):
    """The gallery's folder; the service opens it anew."""
    return str(gallery.uri)


@contextmanager
def started(*options, log):
    """A service in a process of its own, and what it printed first: where it is."""
    command = [sys.executable, "-m", "reprism", "serve", "--port", "0", "--precision", "fp32", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        line = process.stdout.readline()  # which comes once it listens
        assert line, log.read_text()
        yield process, line
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.slow
def test_it_serves_by_tls_and_ends_in_order(place, model_file, tokens, pictures, tmp_path):
    authority, verify = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(verify)
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    options = [
        "--gallery", place, "--model", str(model_file), "--tokens", str(tokens), "--host", "0.0.0.0",
        "--certificate", str(tmp_path / "certificate.pem"), "--key", str(tmp_path / "key.pem"),
    ]  # fmt: skip
    with started(*options, log=tmp_path / "log") as (process, line):
        host, port = re.search(r"^Serving at https://(\S+):(\d+)/, and at every other address", line).groups()
        assert host == socket.gethostname()
        with httpx2.Client(base_url=f"https://127.0.0.1:{port}", timeout=300, verify=verify) as client:
            assert client.get("/healthz").json() == {"status": "ok"}
            assert client.post("/search", files={"image": pictures[0]}).status_code == 401
            for pid, picture in zip(("ada", "a/b", "%2e%2e"), pictures[:3], strict=True):
                answer = client.post("/images", files={"image": picture}, data={"pid": pid}, headers=HEADERS)
                assert answer.status_code == 201
            found = client.post("/search", files={"image": pictures[1]}, headers=HEADERS).json()["matches"]
            assert found[0]["pid"] == "a/b"
            for pid in ("a%2Fb", "%252e%252e"):
                assert client.delete(f"/identities/{pid}", headers=HEADERS).json() == {"erased": 1}
            # 50 MB, said and not said: refused, and the service goes on.
            form = {"Content-Type": "multipart/form-data; boundary=b"}
            for content in (bytes(50_000_000), iter([bytes(1_000_000)] * 50)):
                with suppress(httpx2.TransportError):  # it may close the connection before all is sent
                    assert client.post("/search", content=content, headers=HEADERS | form).status_code in (413, 422)
            assert client.get("/stats", headers=HEADERS).json()["rows"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait() in (0, -signal.SIGTERM)
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert TOKEN not in log
    assert "identities" not in log  # identities that were erased stand in no log
    assert {row.pid for row in Gallery.open(place).rows()} == {"ada"}
    lines = [json.loads(line) for line in (tmp_path / "gallery.audit.jsonl").read_text().splitlines()]
    assert [(line["who"], line["what"]) for line in lines if line.get("state") != "done"] == [
        *[("alice", "add")] * 3, ("alice", "search"), *[("alice", "erase")] * 2,
    ]  # fmt: skip


def test_it_says_where_it_is_and_how_to_stop_it(place, model_file, tmp_path):
    with started("--gallery", place, "--model", str(model_file), log=tmp_path / "log") as (process, line):
        address = re.search(r"^Serving at (http://127\.0\.0\.1:\d+/)\. .* Press Ctrl-C to stop\.$", line)[1]
        assert f"{address}docs" in line
        assert httpx2.get(f"{address}docs", timeout=300).status_code == 200
        # The port is taken now.
        port = address.rstrip("/").rpartition(":")[2]
        assert main(["serve", "--gallery", place, "--model", str(model_file), "--port", port]) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
        assert process.stdout.read() == "Stopped.\n"
    assert re.fullmatch(rf"{model_file}: \w+ by \w+ on \w+\n", (tmp_path / "log").read_text())


@pytest.mark.parametrize(
    ("host", "certificate", "expected"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:81/"),
        ("::1", None, "http://[::1]:81/"),
        ("example.org", "c.pem", "https://example.org:81/"),
        ("::", "c.pem", f"https://{socket.gethostname()}:81/"),
    ],
)
def test_the_address_is_one_to_click(host, certificate, expected):
    config = uvicorn.Config("app", host=host, port=81, ssl_certfile=certificate)
    assert _announcement(config, 81).startswith(f"Serving at {expected}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--tokens FILE"),
        (["--host", "::"], "--tokens FILE"),
        (["--host", "example.org"], "--tokens FILE"),
        (["--tokens", "missing.toml"], "missing.toml"),
        (["--certificate", "c.pem"], "--key"),
        (["--retain", "a while"], "30d"),
        (["--retain", "0d"], "more than 0"),
        (["--retain", "999999999999d"], "longer than can be counted"),
        (["--queue", "0"], "queue"),
        (["--link-every", "-1"], "--link-every -1"),
        (["--calibration", "missing.json"], "missing.json"),
    ],
)
def test_it_does_not_start_otherwise(place, model_file, monkeypatch, capsys, options, words):
    def start(*_args, **_options):
        raise AssertionError("it started")

    monkeypatch.setattr("uvicorn.Server.run", start)
    assert main(["serve", "--gallery", place, "--model", str(model_file), *options]) == 1
    assert words in capsys.readouterr().err


def test_tokens_that_everyone_can_read_are_refused(place, model_file, tokens, monkeypatch, capsys):
    monkeypatch.setattr("uvicorn.Server.run", lambda _: pytest.fail("it started"))
    command = ["serve", "--gallery", place, "--model", str(model_file), "--tokens", str(tokens)]
    tokens.chmod(0o644)
    assert main(command) == 1
    assert "chmod 600" in capsys.readouterr().err
    tokens.chmod(0o600)
    monkeypatch.setenv("REPRISM_TOKENS", f'bob = {{token = "{TOKEN}", scopes = ["search"]}}')
    assert main(command) == 1
    assert re.search("--tokens.*REPRISM_TOKENS", capsys.readouterr().err)


def test_the_environments_tokens_open_it_to_others(place, model_file, monkeypatch):
    configs = []
    monkeypatch.setattr("uvicorn.Server.run", lambda server: configs.append(server.config))
    monkeypatch.setenv("REPRISM_TOKENS", f'bob = {{token = "{TOKEN}", scopes = ["search"]}}')
    assert main(["serve", "--gallery", place, "--model", str(model_file), "--host", "0.0.0.0"]) == 0
    (config,) = configs
    assert config.host == "0.0.0.0"
    assert config.access_log is False
    assert config.app.state.access.holder_of(f"Bearer {TOKEN}").name == "bob"


def test_without_options_it_keeps_to_this_machine(place, model_file, monkeypatch):
    configs = []
    monkeypatch.setattr("uvicorn.Server.run", lambda server: configs.append(server.config))
    monkeypatch.delenv("REPRISM_TOKENS", raising=False)
    assert main(["serve", "--gallery", place, "--model", str(model_file)]) == 0
    assert configs[0].host == "127.0.0.1"
    assert not configs[0].app.state.access.tokens


@pytest.mark.parametrize(("options", "seconds"), [([], 10), (["--link-every", "0"], 0)])
def test_it_is_told_how_often_to_look_for_new_rows(place, model_file, monkeypatch, options, seconds):
    given = []
    monkeypatch.setattr("reprism.service.api.create_app", lambda *args, **_: given.append(args[2]) or create_app(*args))
    monkeypatch.setattr("uvicorn.Server.run", lambda _: None)
    assert main(["serve", "--gallery", place, "--model", str(model_file), *options]) == 0
    assert [settings.link_seconds for settings in given] == [seconds]


def test_help_and_the_package_stay_light():
    code = "import reprism, sys; print([m for m in ('torch', 'fastapi', 'lancedb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_it_does_not_wait_for_those_who_listen(place, model_file, tmp_path):
    with started("--gallery", place, "--model", str(model_file), log=tmp_path / "log") as (process, line):
        address = re.search(r"http://[^/]+", line)[0]
        with httpx2.Client(timeout=60) as client, client.stream("GET", f"{address}/events") as answer:
            lines = answer.iter_lines()
            assert next(lines) == ": listening"
            process.send_signal(signal.SIGINT)
            # Its end is told, which it is not where the connection is cut after the 30 seconds that requests have.
            assert not any(line.startswith("event") for line in lines)
        assert process.wait() == 0
    assert "graceful" not in (tmp_path / "log").read_text()
