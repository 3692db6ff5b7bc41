"""``reprism serve``: a process of its own, spoken to over the network."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from contextlib import suppress

import httpx2
import pytest
import trustme

from reprism.cli import main
from reprism.gallery.table import Gallery

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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_it_serves_by_tls_and_ends_in_order(place, model_file, tokens, pictures, tmp_path):
    port = free_port()
    authority, verify = trustme.CA(), ssl.create_default_context()
    authority.configure_trust(verify)
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "certificate.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    command = [
        sys.executable, "-m", "reprism", "serve", "--gallery", place, "--model", str(model_file), "--port", str(port),
        "--tokens", str(tokens), "--host", "0.0.0.0", "--precision", "fp32",
        "--certificate", str(tmp_path / "certificate.pem"), "--key", str(tmp_path / "key.pem"),
    ]  # fmt: skip
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        with httpx2.Client(base_url=f"https://127.0.0.1:{port}", timeout=300, verify=verify) as client:
            while True:
                try:
                    assert client.get("/healthz").json() == {"status": "ok"}
                    break
                except httpx2.TransportError:
                    assert process.poll() is None, (tmp_path / "log").read_text()
                    time.sleep(0.1)
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
    finally:
        process.kill()
        process.wait()
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert TOKEN not in log
    assert "identities" not in log  # identities that were erased stand in no log
    assert {row.pid for row in Gallery.open(place).rows()} == {"ada"}
    lines = [json.loads(line) for line in (tmp_path / "gallery.audit.jsonl").read_text().splitlines()]
    assert [(line["who"], line["what"]) for line in lines] == [
        *[("alice", "add")] * 3, ("alice", "search"), *[("alice", "erase")] * 2,
    ]  # fmt: skip


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
        (["--calibration", "missing.json"], "missing.json"),
    ],
)
def test_it_does_not_start_otherwise(place, model_file, monkeypatch, capsys, options, words):
    def start(*_args, **_options):
        raise AssertionError("it started")

    monkeypatch.setattr("uvicorn.run", start)
    assert main(["serve", "--gallery", place, "--model", str(model_file), *options]) == 1
    assert words in capsys.readouterr().err


def test_tokens_that_everyone_can_read_are_refused(place, model_file, tokens, monkeypatch, capsys):
    monkeypatch.setattr("uvicorn.run", lambda *_args, **_options: pytest.fail("it started"))
    command = ["serve", "--gallery", place, "--model", str(model_file), "--tokens", str(tokens)]
    tokens.chmod(0o644)
    assert main(command) == 1
    assert "chmod 600" in capsys.readouterr().err
    tokens.chmod(0o600)
    monkeypatch.setenv("REPRISM_TOKENS", f'bob = {{token = "{TOKEN}", scopes = ["search"]}}')
    assert main(command) == 1
    assert re.search("--tokens.*REPRISM_TOKENS", capsys.readouterr().err)


def test_the_environments_tokens_open_it_to_others(place, model_file, monkeypatch):
    started = {}
    monkeypatch.setattr("uvicorn.run", lambda app, **options: started.update(options, app=app))
    monkeypatch.setenv("REPRISM_TOKENS", f'bob = {{token = "{TOKEN}", scopes = ["search"]}}')
    assert main(["serve", "--gallery", place, "--model", str(model_file), "--host", "0.0.0.0"]) == 0
    assert started["host"] == "0.0.0.0"
    assert started["access_log"] is False
    assert started["app"].state.access.holder_of(f"Bearer {TOKEN}").name == "bob"


def test_without_options_it_keeps_to_this_machine(place, model_file, monkeypatch):
    started = {}
    monkeypatch.setattr("uvicorn.run", lambda app, **options: started.update(options, app=app))
    monkeypatch.delenv("REPRISM_TOKENS", raising=False)
    assert main(["serve", "--gallery", place, "--model", str(model_file)]) == 0
    assert started["host"] == "127.0.0.1"
    assert not started["app"].state.access.tokens


def test_help_and_the_package_stay_light():
    code = "import reprism, sys; print([m for m in ('torch', 'fastapi', 'lancedb') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"
