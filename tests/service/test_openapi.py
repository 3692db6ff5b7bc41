"""The service does what its OpenAPI document says: requests made up from it, right and wrong ones (schemathesis)."""

import io

import pytest
import schemathesis
import schemathesis.checks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

import reprism
from reprism.gallery.table import Gallery
from reprism.service.access import Access
from reprism.service.api import create_app


def small_picture(color):
    buffer = io.BytesIO()
    Image.new("RGB", (16, 32), color).save(buffer, "png")
    return buffer.getvalue()


# Where the document says that a picture is wanted, one is sent: random bytes are tested in test_uploads.py.
schemathesis.openapi.format("binary", st.sampled_from([small_picture(color) for color in ("red", "green", "blue")]))


TOKEN = "a-token-for-everything"


@pytest.fixture(scope="module")
def apps(tmp_path_factory, model_file):
    """The service without tokens and with them."""
    embedder = reprism.Embedder(model_file, precision="fp32", device="cpu")
    gallery = Gallery.create(tmp_path_factory.mktemp("schema") / "gallery", embedder)
    gallery.enable_linking("find lost children", 30)
    access = Access.from_toml(f'all = {{token = "{TOKEN}", scopes = ["search", "write", "erase", "link"]}}', "the test")
    return create_app(gallery, embedder), create_app(gallery, embedder, access=access)


@pytest.fixture(scope="module")
def schema(apps):
    return schemathesis.openapi.from_asgi("/openapi.json", apps[0], headers={"Host": "localhost"})


@pytest.fixture(scope="module")
def guarded_schema(apps):
    return schemathesis.openapi.from_asgi("/openapi.json", apps[1])


ENDPOINTS = [
    ("POST", "/search"),
    ("POST", "/images"),
    ("GET", "/images/{id}"),
    ("GET", "/images/{id}/thumbnail"),
    ("GET", "/images/{id}/strip/{number}"),
    ("GET", "/images/{id}/clip"),
    ("DELETE", "/images/{id}"),
    ("DELETE", "/identities/{pid}"),
    ("GET", "/people"),
    ("GET", "/people/{number}"),
    ("GET", "/people/network"),
    ("GET", "/people/questions"),
    ("POST", "/people/answers"),
    ("GET", "/people/answers"),
    ("DELETE", "/people/answers/{number}"),
    ("GET", "/people/changes"),
    ("POST", "/people/changes/{number}/undo"),
    ("GET", "/stats"),
    ("GET", "/session"),
    ("GET", "/healthz"),
    ("GET", "/metrics"),
]


ENDLESS = ("GET", "/events")  # its answer ends when the client goes: test_live.py


def test_that_is_all_there_is(schema):
    found = {(m.upper(), path) for path, methods in schema.raw_schema["paths"].items() for m in methods}
    assert found == {*ENDPOINTS, ENDLESS}


def bounded(path):
    """Fewer examples of what is about people: there is much of it, and each answer reads several tables."""
    return settings(
        max_examples=12 if path.startswith("/people") else 50,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_it_does_what_it_says(schema, method, path, mode):
    operation = schema[path][method]
    takes = "parameters" in operation.definition.raw or "requestBody" in operation.definition.raw
    if mode is schemathesis.GenerationMode.NEGATIVE and not takes:
        pytest.skip("it takes nothing that could be wrong")
    if mode is schemathesis.GenerationMode.NEGATIVE and path == "/identities/{pid}":
        pytest.skip("any text is an identity")

    # A number in a form is text like any other: what was meant to be wrong is right. test_api.py has what is not.
    excluded = [schemathesis.checks.negative_data_rejection] if (method, path) == ("POST", "/images") else []

    @given(case=operation.as_strategy(generation_mode=mode))
    @bounded(path)
    def check(case):
        case.call_and_validate(base_url="http://localhost", excluded_checks=excluded)

    check()


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_with_tokens_too(guarded_schema, method, path):
    """Among others, that what needs a token answers nobody without one."""

    @given(case=guarded_schema[path][method].as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE))
    @bounded(path)
    def check(case):
        case.call_and_validate(headers={"Authorization": f"Bearer {TOKEN}"})

    check()


def test_every_endpoint_and_error_has_an_example(schema):
    document = schema.raw_schema
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description") or operation["summary"]
            for status, answer in operation["responses"].items():
                for kind, content in answer.get("content", {}).items():
                    if kind != "application/json":
                        continue
                    where = f"{method} {path} {status}"
                    if int(status) >= 400:
                        assert content["example"]["detail"], where
                    else:
                        assert_examples(document, content["schema"], where)


def assert_examples(document, described, where):
    """An example stands beside every value, however deep."""
    while "$ref" in described:
        described = document["components"]["schemas"][described["$ref"].rsplit("/", 1)[1]]
    for name, value in described.get("properties", {}).items():
        choices = [choice for choice in value.get("anyOf", [value]) if choice.get("type") != "null"]
        nested = [choice.get("items", choice) for choice in choices if "$ref" in choice.get("items", choice)]
        if nested:
            assert_examples(document, nested[0], f"{where} {name}")
        else:
            assert "examples" in value or "const" in value, f"{where}: {name}"
