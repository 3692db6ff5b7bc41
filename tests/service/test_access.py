"""Who gets in: tokens, their scopes, and what guards a service without tokens."""

import asyncio
import hashlib
import logging
import os

import pytest

from reprism.service.access import SCOPES, Access, AccessError, check_host
from reprism.service.api import create_app

LONG = "a-token-that-is-long"

ENDPOINTS = [
    ("POST", "/search", "search"),
    ("GET", "/images/" + "0" * 32, "search"),
    ("GET", "/images/" + "0" * 32 + "/thumbnail", "search"),
    ("GET", "/images/" + "0" * 32 + "/strip/0", "search"),
    ("GET", "/images/" + "0" * 32 + "/clip", "search"),
    ("GET", "/stats", "search"),
    ("GET", "/metrics", "search"),
    ("POST", "/images", "write"),
    ("DELETE", "/images/" + "0" * 32, "erase"),
    ("DELETE", "/identities/ada", "erase"),
]
ENDLESS = {("GET", "/events")}  # who may listen is in test_live.py
OPEN = {"/healthz", "/session"}


@pytest.mark.parametrize(("method", "path", "scope"), ENDPOINTS)
def test_each_endpoint_takes_its_scope_and_no_other(serve, access, bearer, method, path, scope):
    client = serve(access=access)
    for other in SCOPES:
        answer = client.request(method, path, headers=bearer(other))
        assert (answer.status_code == 403) == (other != scope)
        assert answer.status_code in ((200, 404, 415) if other == scope else (403,))
    for headers in (
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong-token-of-some-length"},
        {"Authorization": bearer(scope)["Authorization"] + "x"},
        {"Authorization": bearer(scope)["Authorization"].replace("Bearer", "Basic")},
        {"Authorization": bearer(scope)["Authorization"].removeprefix("Bearer ")},
    ):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"


def test_no_endpoint_is_left_out_of_that_table(serve, access):
    """What the service says of itself has every endpoint, and asks for a token at each that is not open."""
    paths = serve(access=access).get("/openapi.json").json()["paths"]
    documented = {
        (method.upper(), path)
        for path, methods in paths.items()
        for method in methods
        if not path.startswith("/people")  # who sees people is in test_people.py
    }
    places = {"0" * 32: "{id}", "strip/0": "strip/{number}", "ada": "{pid}"}
    tried = set()
    for method, path, _ in ENDPOINTS:
        for place, name in places.items():
            path = path.replace(place, name)
        tried.add((method, path))
    assert documented == tried | ENDLESS | {("GET", path) for path in OPEN}
    for method, path in tried | ENDLESS:
        assert paths[path][method.lower()]["security"]


def test_an_unknown_token_uploads_nothing(serve, access):
    """It is refused before its body is read."""
    read = []

    def body():
        read.append(True)
        yield b"x"

    answer = serve(access=access).post("/search", content=body(), headers={"Content-Type": "multipart/form-data"})
    assert answer.status_code == 401
    assert not read


def test_a_session_says_what_its_token_may_do(serve, access, bearer):
    client = serve(access=access)
    assert client.get("/session").json() == {"scopes": [], "tokens": True, "cameras": [], "times": [], "people": False}
    assert client.get("/session", headers=bearer("write")).json()["scopes"] == ["write"]
    assert client.get("/session", headers={"Authorization": "Bearer wrong"}).status_code == 401


def test_tokens_are_kept_and_logged_nowhere(serve, access, bearer, pictures, caplog, tmp_path):
    assert not [scope for scope in SCOPES if bearer(scope)["Authorization"].split()[1] in repr(access)]
    client = serve(access=access)
    with caplog.at_level(logging.DEBUG):
        client.post("/search", files={"image": pictures[0]}, headers=bearer("search"))
        client.post("/search", files={"image": pictures[0]}, headers=bearer("erase"))
        client.post("/search", files={"image": pictures[0]}, headers={"Authorization": "Bearer something-unknown"})
    assert "erase was refused" in caplog.text
    for text in (caplog.text, (tmp_path / "audit.jsonl").read_text()):
        assert "token-that-may" not in text
        assert "something-unknown" not in text


# ---- where tokens come from ------------------------------------------------------------------------------


def test_tokens_are_read_from_toml():
    digest = hashlib.sha256(b"another-token-of-bob").hexdigest()
    text = f'[alice]\ntoken = "{LONG}"\nscopes = ["search", "write"]\n[bob]\nsha256 = "{digest}"\nscopes = ["erase"]\n'
    access = Access.from_toml(text, "f")
    alice, bob = access.holder_of(f"Bearer {LONG}"), access.holder_of("bearer another-token-of-bob")
    assert (alice.name, alice.scopes) == ("alice", {"search", "write"})
    assert (bob.name, bob.scopes) == ("bob", {"erase"})
    assert access.holder_of(f"Bearer {digest}") is None
    assert access.holder_of(f"Basic {LONG}") is None
    assert access.holder_of(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "names nobody"),
        ("[alice", "no TOML"),
        ('alice = "token"', "a table"),
        ('[alice]\nscopes = ["search"]', "either a token or its sha256"),
        (f'[alice]\ntoken = "{LONG}"\nsha256 = "{"0" * 64}"\nscopes = ["search"]', "either a token or its sha256"),
        ('[alice]\nsha256 = "abc"\nscopes = ["search"]', "either a token or its sha256"),
        ('[alice]\ntoken = "short"\nscopes = ["search"]', "could be guessed"),
        ('[alice]\ntoken = "with spaces in between"\nscopes = ["search"]', "could be guessed"),
        (f'[alice]\ntoken = "{LONG}"\nscopes = ["serach"]', "search, write, erase"),
        (f'[alice]\ntoken = "{LONG}"\nscopes = []', "search, write, erase"),
        (f'[alice]\ntoken = "{LONG}"\nscopes = "search"', "search, write, erase"),
        (f'[alice]\ntoken = "{LONG}"\nscopes = ["search"]\nuntil = 2030', "nothing else"),
        (f'[a]\ntoken = "{LONG}"\nscopes = ["search"]\n[b]\ntoken = "{LONG}"\nscopes = ["erase"]', "same token"),
    ],
)
def test_tokens_that_are_not_good_are_refused(text, words):
    with pytest.raises(AccessError, match=words) as caught:
        Access.from_toml(text, "tokens.toml")
    assert "tokens.toml" in str(caught.value)
    assert LONG not in str(caught.value)


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_file_that_everyone_reads_is_refused(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(f'[alice]\ntoken = "{LONG}"\nscopes = ["search"]')
    for mode in (0o604, 0o602, 0o644, 0o666):
        path.chmod(mode)
        with pytest.raises(AccessError, match="chmod 600"):
            Access.from_file(path)
    for mode in (0o600, 0o640, 0o400):
        path.chmod(mode)
        assert Access.from_file(path).tokens


def test_the_environment_holds_them_in_one_line():
    access = Access.from_environment({"REPRISM_TOKENS": f'alice = {{token = "{LONG}", scopes = ["search"]}}'})
    assert access.holder_of(f"Bearer {LONG}").name == "alice"
    assert not Access.from_environment({}).tokens
    with pytest.raises(AccessError, match="REPRISM_TOKENS"):
        Access.from_environment({"REPRISM_TOKENS": "alice"})


# ---- without tokens --------------------------------------------------------------------------------------


def test_without_tokens_only_this_machine(access):
    for host in ("127.0.0.1", "::1"):
        check_host(host, Access())
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org", "localhost.example.org", "127.0.0.1.example.org", ""):
        with pytest.raises(AccessError, match="--tokens"):
            check_host(host, Access())
        check_host(host, access)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "localhost:8000",
        "LOCALHOST",
        "LocalHost:80",
        "[::1]:8000",
        "[::1]",
        "127.0.0.1",
        "localhost:1",
    ],
)
def test_its_own_names_are_answered(serve, host):
    client = serve()
    assert client.get("/healthz", headers={"Host": host}).status_code == 200
    for origin in (f"http://{host}", f"https://{host}", f"HTTP://{host.lower()}"):
        assert client.get("/healthz", headers={"Host": host, "Origin": origin}).status_code == 200


HOSTS = [
    *("", " ", "evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0"),
    *("evil.com@localhost", "localhost@evil.com", "localhost:pw@evil.com", "evil.com:80@127.0.0.1", "@localhost"),
    *("localhost, evil.com", "evil.com, localhost", "localhost,localhost", "localhost evil.com", "localhost;evil.com"),
    *("localhost.", "127.0.0.1.", "localhost.:8000", ".localhost", "127.0.0.1..", "127.1", "2130706433", "0x7f.0.0.1"),
    *("localhost:", "localhost:80:80", "localhost:8000x", "localhost:-1", "localhost:+80", "localhost:123456"),
    *("[::1", "::1", "::1]:8000", "[::1]evil.com", "[::1].evil.com", "[::1%25eth0]", "[::ffff:127.0.0.1]", "[0::1]"),
    *("localhost/", "localhost/evil.com", "localhost?evil.com", "localhost#evil.com", "localhost\\evil.com"),
    *("http://localhost", "//localhost", "localhost\tevil.com", "localhost:8000 ", "localhost%00", "127.0.0.\u0661"),
]


def answer_of(app, headers):
    """The status of a request with these headers, as they come: no client or server has cleaned them up."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/healthz", "raw_path": b"/healthz", "query_string": b"", "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"]


@pytest.fixture
def unguarded(gallery, embedder):
    return create_app(gallery, embedder)


@pytest.mark.parametrize("host", HOSTS)
def test_no_other_name_passes_for_its_own(unguarded, host):
    assert answer_of(unguarded, [("Host", host)]) == 403
    # Nor does an origin at such a place.
    assert answer_of(unguarded, [("Host", "localhost"), ("Origin", f"http://{host}")]) == 403


@pytest.mark.parametrize(
    "origin",
    [
        "", "null", "localhost", "//localhost", "chrome-extension://localhost", "moz-extension://localhost",
        "file://localhost", "ftp://localhost", "http:localhost", "http:///localhost", "http://localhost/",
        "http://localhost:8000", "http://127.0.0.1", "http://evil.com@localhost", "http://localhost, http://evil.com",
        "xhttp://localhost", "http://localhost http://evil.com", "http://localhost\n",
    ],
)  # fmt: skip
def test_no_other_origin_passes_for_its_own(unguarded, origin):
    assert answer_of(unguarded, [("Host", "localhost"), ("Origin", origin)]) == 403


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Host", "localhost"), ("Host", "evil.example")],
        [("Host", "evil.example"), ("Host", "localhost")],
        [("Host", "localhost"), ("Host", "localhost")],
        [("Host", "localhost"), ("Origin", "http://localhost"), ("Origin", "http://evil.example")],
        [("Host", "localhost"), ("Sec-Fetch-Site", "none"), ("Sec-Fetch-Site", "cross-site")],
        [
            ("Host", "localhost"), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"),
            ("Sec-Fetch-Mode", "cors"),
        ],
    ],
)  # fmt: skip
def test_of_several_headers_each_counts(unguarded, headers):
    assert answer_of(unguarded, headers) == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Origin": "http://evil.example"},
    ],
)
def test_other_sites_pages_are_not(serve, access, headers):
    answer = serve().get("/healthz", headers=headers)
    assert answer.status_code == 403
    assert "without tokens" in answer.json()["detail"]
    # A token is nothing that a browser sends of itself: with tokens none of this is needed.
    if headers.get("Host"):
        assert serve(access=access).get("/healthz", headers=headers).status_code == 200


def test_a_link_may_lead_to_the_page(serve):
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    assert serve().get("/healthz", headers=headers).status_code == 200
