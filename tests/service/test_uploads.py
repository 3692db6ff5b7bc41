"""What is uploaded is hostile until decoded: each limit holds before the work that it is to spare."""

import asyncio
import io
import struct
import tempfile
import zlib

import pytest
from PIL import Image

from reprism.service.api import create_app
from reprism.service.settings import ServiceSettings

SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://example.org/x.png"/></svg>'


def png(width, height):
    """A whole PNG file of one colour, of as few bytes as can be, without its pixels ever being in memory."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = bytes(1 + (width + 7) // 8)
    pixels = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(kind, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.effect_noise((40, 80), 60).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def broken_png():
    """A picture whose pixels are damaged."""
    content = bytearray(encoded("png"))
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)
    return bytes(content)


@pytest.fixture(scope="module")
def bomb():
    content = png(20_000, 20_000)
    assert len(content) < 100_000
    return content


@pytest.mark.parametrize("path", ["/search", "/images"])
@pytest.mark.parametrize(
    ("name", "content", "status", "words"),
    [
        ("x.jpg", b"This is a text.", 415, "JPEG, PNG, WEBP"),
        ("x.jpg", b"", 415, "JPEG, PNG, WEBP"),
        ("x.png", encoded("gif", "P"), 415, "JPEG, PNG, WEBP"),
        ("x.tiff", encoded("tiff"), 415, "JPEG, PNG, WEBP"),
        ("x.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n", 415, "JPEG, PNG, WEBP"),
        ("x.svg", SVG, 415, "JPEG, PNG, WEBP"),
        ("x.png", b"RIFF\x00\x00\x00\x00WAVEfmt ", 415, "JPEG, PNG, WEBP"),
        ("x.png", b"\x89PNG\r\n\x1a\n" + SVG, 422, "cannot be decoded"),
        ("x.jpg", b"\xff\xd8\xff\xe0", 422, "cannot be decoded"),
        ("x.jpg", encoded("jpeg")[:-400], 422, "truncated"),
        ("x.png", broken_png(), 422, "cannot be decoded"),
        ("x.webp", encoded("webp")[:60], 422, "cannot be decoded"),
        ("x.png", encoded("png", "I;16"), 422, "8 bits"),
    ],
)
def test_what_is_no_picture_is_refused(serve, gallery, path, name, content, status, words):
    answer = serve().post(path, files={"image": (name, content, "image/jpeg")})
    assert (answer.status_code, words in answer.json()["detail"]) == (status, True), answer.text
    assert len(gallery) == 0


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "CMYK"])
def test_pictures_are_known_by_what_they_hold(serve, kind, mode):
    if (kind, mode) in {("jpeg", "RGBA"), ("jpeg", "P"), ("png", "CMYK"), ("webp", "P"), ("webp", "CMYK")}:
        pytest.skip("there is no such file")
    answer = serve().post("/images", files={"image": ("notes.txt", encoded(kind, mode), "text/plain")})
    assert answer.status_code == 201


def test_a_bomb_is_known_by_its_header(serve, bomb, monkeypatch):
    """Few bytes that unpack to 400 million pixels; and one within Pillow's own limits, but not within ours."""

    def decode(*_args, **_options):
        raise AssertionError("its pixels were decoded")

    client = serve()
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    for content in (bomb, png(6_000, 6_000)):
        answer = client.post("/search", files={"image": content})
        assert answer.status_code == 413
        assert "pixels" in answer.json()["detail"]


def test_the_limit_of_pixels_is_what_was_set(serve):
    client = serve(max_pixels=1000)
    assert client.post("/images", files={"image": png(40, 25)}).status_code == 201
    assert client.post("/images", files={"image": png(40, 26)}).status_code == 413


# ---- bodies, at the protocol itself ----------------------------------------------------------------------


def call(app, chunks, headers, path="/search", pause=0.0):
    """Send a request chunk by chunk; gives the answer's status and how many bytes the app took."""

    async def run():
        taken, answers = 0, []
        waiting = list(chunks)

        async def receive():
            nonlocal taken
            await asyncio.sleep(pause)
            if not waiting:
                await asyncio.sleep(60)
            chunk = waiting.pop(0)
            taken += len(chunk)
            return {"type": "http.request", "body": chunk, "more_body": bool(waiting)}

        async def send(message):
            answers.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "path": path,
            "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
            "headers": [(b"host", b"localhost"), *headers], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        async with app.router.lifespan_context(app):
            await app(scope, receive, send)
        return answers[0]["status"], taken

    return asyncio.run(run())


TYPE = (b"content-type", b"multipart/form-data; boundary=b")
HEAD = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.jpg"\r\n\r\n'


@pytest.fixture
def app(gallery, embedder):
    return create_app(gallery, embedder, ServiceSettings(upload_seconds=0.5))


def test_a_body_that_says_it_is_too_large_is_not_begun(app):
    assert call(app, [HEAD, bytes(2**20)], [TYPE, (b"content-length", b"50000000")]) == (413, 0)


def test_a_body_that_grows_too_large_is_left(app):
    """50 MB in chunks, of which no more than the limit (10 MB) and one chunk are taken."""
    status, taken = call(app, [HEAD, *[bytes(2**20)] * 50], [TYPE])
    assert status == 413
    assert taken <= 11 * 2**20


def test_a_body_that_does_not_arrive_is_given_up(app):
    assert call(app, [HEAD] + [b"x"] * 100, [TYPE], pause=0.1)[0] == 408


def test_pictures_do_not_go_to_a_disk_on_their_way(app, monkeypatch):
    """Starlette's own parser would write one of this size to a temporary file."""

    def rollover(_):
        raise AssertionError("a temporary file was made")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", rollover)
    body = [HEAD, *[bytes(2**20)] * 5, b"\r\n--b--\r\n"]
    assert call(app, body, [TYPE]) == (415, sum(map(len, body)))


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (HEAD + b"x\r\n--b--\r\n", b"multipart/form-data", 422),  # no boundary
        (b"image=x", b"application/x-www-form-urlencoded", 415),
        (b"{}", b"application/json", 415),
        (b"nothing of the kind", b"multipart/form-data; boundary=b", 422),
        (b"", b"multipart/form-data; boundary=b", 422),
        (HEAD + b"x\r\n" + HEAD + b"y\r\n--b--\r\n", b"multipart/form-data; boundary=b", 422),  # two files
        (HEAD.replace(b"image", b"picture") + b"x\r\n--b--\r\n", b"multipart/form-data; boundary=b", 422),
        (HEAD.replace(b'; filename="x.jpg"', b"") + b"x\r\n--b--\r\n", b"multipart/form-data; boundary=b", 422),
        (
            HEAD.replace(b'; filename="x.jpg"', b"").replace(b"image", b"pid") + b"x" * 5000 + b"\r\n--b--\r\n",
            b"multipart/form-data; boundary=b",
            422,
        ),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", b"multipart/form-data; boundary=b", 422),
        (b"--b\r\n" + b"a" * 20_000, b"multipart/form-data; boundary=b", 422),
        (HEAD + b"x\r\n--b--\r\n", b"multipart/form-data; boundary=" + b"b" * 500, 422),
    ],
)
def test_forms_that_are_none(app, body, kind, status):
    assert call(app, [body], [(b"content-type", kind)], "/images")[0] == status
