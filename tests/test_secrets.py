"""Secrets planted in ten places are found in no output: see ``PLACES``."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from aiohttp import web
from helpers.chat_server import ChatServer

import clm_data
from clm_data.cli import run
from clm_data.errors import ClmDataError, StoreError
from clm_data.hub import Repository
from clm_data.llm.offline import OfflineModel
from clm_data.resources import resource
from clm_data.store import Store

SECRET = "planted-4711-secret"


class EchoServer(ChatServer):
    """Repeats what it was sent in errors, headers and pages, then answers from the bank."""

    def __init__(self, kind: str) -> None:
        super().__init__(OfflineModel())
        self._kind = kind
        self._failed = False
        self.received = 0

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.received += 1
        sent = f"{request.headers.get('Authorization')} {request.raw_path}"
        if self._failed or self._kind == "answer":
            return await super()._chat(request)
        self._failed = True
        if self._kind == "page":
            return web.Response(text=f"<html><title>{sent}</title>", content_type="text/html")
        if self._kind == "redirect":
            return web.Response(status=307, headers={"Location": f"http://a.invalid/?k={SECRET}"})
        if self._kind == "text":
            return web.Response(text=f"bad gateway: {sent}", content_type="text/plain")
        status = {"refused": 400, "key": 401, "limit": 429, "down": 503}[self._kind]
        error = {"message": f"no: {sent}", "code": "x", "param": sent}
        return web.json_response({"error": error}, status=status, headers={"Retry-After": "0"})


Plant = Callable[[pytest.MonkeyPatch, Path, str], list[str]]
"""Plants the secret, given the address of the endpoint; returns arguments of the command."""


def argument(template: str) -> Plant:
    """In ``--base-url``."""
    return lambda _env, _folder, url: ["--base-url", template.format(*url.split("//"))]


def variable(name: str, value: str, *, with_url: bool = True) -> Plant:
    """In an environment variable."""

    def plant(env: pytest.MonkeyPatch, _: Path, url: str) -> list[str]:
        env.setenv(name, value.format(*url.split("//")))
        return ["--base-url", url] if with_url else []

    return plant


def in_settings(_env: pytest.MonkeyPatch, folder: Path, url: str) -> list[str]:
    (folder / "clm.yaml").write_text(f"base_url: {url}?key={SECRET}\n")
    return []


PLACES: dict[str, Plant] = {
    "the key": variable("CLM_DATA_API_KEY", SECRET),
    "a key that cannot be sent": variable("CLM_DATA_API_KEY", f"{SECRET}密"),
    "the query of --base-url": argument(f"{{}}//{{}}?key={SECRET}&v=1"),
    "the query of base_url in clm.yaml": in_settings,
    "the query of CLM_DATA_BASE_URL": variable(
        "CLM_DATA_BASE_URL", f"{{}}//{{}}?key={SECRET}", with_url=False
    ),
    "the password in --base-url": argument(f"{{}}//me:{SECRET}@{{}}"),
    "the fragment of --base-url": argument(f"{{}}//{{}}#{SECRET}"),
    "the password of a proxy": variable("HTTP_PROXY", f"http://me:{SECRET}@127.0.0.1:9"),
    "the password of the store": variable(
        "CLM_DATA_STORE", f"postgresql+psycopg://me:{SECRET}@127.0.0.1:9/db"
    ),
    "the query of the store": variable(
        "CLM_DATA_STORE", f"postgresql+psycopg://127.0.0.1:9/db?password={SECRET}"
    ),
}
REACHING = (
    "the key",
    "the query of --base-url",
    "the query of base_url in clm.yaml",
    "the query of CLM_DATA_BASE_URL",
)
"""The places with which a request reaches the endpoint, so that what it answers matters."""
KINDS = ("answer", "page", "redirect", "text", "refused", "key", "limit", "down")
CASES = [(place, kind) for place in PLACES for kind in (KINDS if place in REACHING else KINDS[:1])]


def outputs_of(folder: Path) -> bytes:
    """All files of a folder except the settings that the user wrote."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "clm.yaml"]
    return b"".join(path.read_bytes() for path in files)


@pytest.fixture(scope="module")
def physics() -> str:
    """A domain file with one domain, which is read much faster than that of all domains."""
    every = yaml.safe_load(resource("domains.yaml").read_text(encoding="utf-8"))
    one = [domain for domain in every if domain["id"] == "physics"]
    return yaml.safe_dump(one, allow_unicode=True)


@pytest.mark.parametrize(("place", "kind"), CASES)
def test_a_planted_secret_is_in_no_output(
    place: str,
    kind: str,
    physics: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = "provider: custom\nmodel: m\ngeneration: {attempts: 1, turns: 1}\n"
    (tmp_path / "domains.yaml").write_text(physics, encoding="utf-8")
    with EchoServer(kind) as server:
        (tmp_path / "clm.yaml").write_text("")
        arguments = PLACES[place](monkeypatch, tmp_path, server.url)
        own = (tmp_path / "clm.yaml").read_text()
        (tmp_path / "clm.yaml").write_text(settings + own)
        here = ["-w", str(tmp_path)]
        run([*here, "generate", "-d", "physics", "--count", "2", *arguments])
        run([*here, "generate", "-d", "physics", "--count", "3", "--json", *arguments])
        raised = python_error(tmp_path, arguments)
        assert bool(server.received) == (place in REACHING)
    for command in (["doctor", "--json"], ["doctor"], ["stats", "--json"]):
        if kind == KINDS[0]:  # they do not show what an endpoint answered
            run([*here, *command])
    run([*here, "audit"])
    run([*here, "build", "--out", str(tmp_path / "dataset")])
    out, err = capfd.readouterr()
    for where, text in {"out": out, "err": err, "log": caplog.text, "error": raised}.items():
        assert SECRET not in text, where
    assert SECRET.encode() not in outputs_of(tmp_path)
    assert "Traceback" not in err


def python_error(folder: Path, arguments: list[str]) -> str:
    """How Python shows what :func:`clm_data.generate` raises, causes and representations too."""
    url = arguments[1] if arguments else None
    try:
        clm_data.generate("physics", count=4, base_url=url, workspace=folder)
    except ClmDataError as error:
        chain: list[BaseException] = [error]
        while chain[-1].__cause__ is not None:
            chain.append(chain[-1].__cause__)
        return "".join([*traceback.format_exception(error), *map(repr, chain)])
    return ""


class _EchoingHub(BaseHTTPRequestHandler):
    timeout = 20

    def do_GET(self) -> None:
        self.send_response(403)
        self.send_header("X-Error-Message", f"no: {self.headers['Authorization']}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_hub_token_that_the_hub_repeats_is_masked() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _EchoingHub) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}"
            with pytest.raises(ClmDataError, match=r"no: Bearer \*\*\*") as caught:
                Repository("a/b", SECRET, url).snapshot()
        finally:
            server.shutdown()
            thread.join()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql+psycopg://u:{SECRET}@[::1/db",
        f"postgresql+psycopg://u:{SECRET}@host:port/db",
        f"postgresql+psycopg://u:a@{SECRET}@127.0.0.1:9/db",
        f"postgresql+psycopg://u@127.0.0.1:9/db?password={SECRET}",
        f"mysql+foo://u:{SECRET}@host/db",
        f"u:{SECRET}@host/db?x={SECRET}",
        f"sqlite://u:{SECRET}@host/x.db",
    ],
)
def test_a_store_url_that_cannot_be_used_is_one_line_without_its_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(url)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_json_report_of_a_run_holds_no_address(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with EchoServer("answer") as server:
        arguments = ["--provider", "vllm", "--model", "m", "--base-url", f"{server.url}?k={SECRET}"]
        here = ["-w", str(tmp_path), "generate", "-d", "physics", "--count", "2", "--json"]
        assert run([*here, *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["requests"] > 0
    assert SECRET.encode() not in outputs_of(tmp_path)
