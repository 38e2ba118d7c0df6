"""A key goes to its provider's hosts, and no key or prompt follows a redirect."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest

from clm_data.cli import run
from clm_data.config import Settings
from clm_data.dedup.files.semantic import open_embedder
from clm_data.errors import ChatError, ConfigError, CredentialsError, UserError
from clm_data.llm import PROVIDERS, endpoint, open_model
from clm_data.llm.address import parse_address

KEY = "sk-planted-1234567"
KEYS = {name: KEY for each in PROVIDERS.values() if (name := each.key_variable)}
ANSWER = b'{"model": "m", "choices": [{"message": {"content": "A"}, "finish_reason": "stop"}]}'


class Recorder(ThreadingHTTPServer):
    """Records each request; answers, or redirects if it has a target."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.redirect: tuple[int, str] | None = None
        self.refuses = 407

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Recorder
    timeout = 20

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.path, dict(self.headers), body))
        status, headers = 200, {"Content-Type": "application/json"}
        if self.server.redirect is not None:
            status, headers["Location"] = self.server.redirect
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(ANSWER))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(ANSWER)

    do_GET: ClassVar = do_POST  # noqa: N815

    def do_CONNECT(self) -> None:
        self.server.seen.append((self.path, dict(self.headers), b""))
        self.send_error(self.server.refuses)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def recorder() -> Iterator[Recorder]:
    with Recorder() as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def ask(url: str, provider: str = "custom") -> str:
    async def go() -> str:
        model = open_model(Settings(provider=provider, base_url=url, model="m"), KEYS)
        try:
            return (await model.complete([{"role": "user", "content": "secret prompt"}])).text
        finally:
            await model.close()

    return asyncio.run(go())


@pytest.mark.parametrize(
    "url",
    [
        "http://anything",
        "https://api.deepseek.com.evil.org/v1",
        "https://api-deepseek.com",
        "https://evil.org/api.deepseek.com",
        "https://evil.org?api.deepseek.com",
        "https://notapi.deepseek.com",
        "https://deepseek.com",
        "http://api.deepseek.com",
        "https://api.deepseek.com:8443/v1",
        "https://api.siliconflow.cn/v1",
        "http://127.0.0.1:1/v1",
    ],
)
def test_the_key_of_a_provider_is_not_sent_elsewhere(url: str) -> None:
    with pytest.raises(ConfigError, match="DEEPSEEK_API_KEY") as caught:
        endpoint(Settings(base_url=url), KEYS)
    assert "--provider custom" in str(caught.value) or "scheme and port" in str(caught.value)
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://api.deepseek.com@evil.org/v1",
        "https://user:planted@api.deepseek.com/v1",
        "https://evil.org\\@api.deepseek.com",
        "https://evil.org\\.api.deepseek.com",
        "https://api.deepseek.com\t.evil.org",
        "https://api.deepseek.com\n.evil.org",
        "https://api.deepseek。com",
        "https://api.deepseek.com#@evil.org",
        "https:api.deepseek.com",
        "https:///api.deepseek.com",
        "http://[::1",
        "http://a:99999999",
        "http://a:b",
        "http://a:0",
        "http://a..b",
        "file:///etc/passwd",
        "https://api.deepseek.com/v1/chat/completions",
    ],
)
@pytest.mark.parametrize("provider", ["deepseek", "custom", "ollama"])
def test_an_address_with_two_readings_is_refused_in_one_line(url: str, provider: str) -> None:
    with pytest.raises(ConfigError) as caught:
        endpoint(Settings(provider=provider, base_url=url), KEYS)
    assert "\n" not in str(caught.value)
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("provider", "url"),
    [
        ("deepseek", "https://API.DeepSeek.COM./beta/"),
        ("deepseek", "https://api.deepseek.com:443/v1"),
        ("siliconflow", "https://api.siliconflow.com/v1"),
        ("dashscope", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
        ("custom", "https://anything.example:8443/v1"),
    ],
)
def test_the_hosts_of_a_provider_get_its_key(provider: str, url: str) -> None:
    found = endpoint(Settings(provider=provider, base_url=url), KEYS)
    assert found.key == KEY
    assert found.address.host == found.address.host.lower().rstrip(".")
    assert KEY not in repr(found)


def test_the_address_in_a_preset_is_always_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with recorder() as server:
        local = dataclasses.replace(PROVIDERS["deepseek"], base_url=server.url)
        monkeypatch.setitem(PROVIDERS, "deepseek", local)
        assert ask(server.url, "deepseek") == "A"
        ((_, headers, _),) = server.seen
    assert headers["Authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target", ["{other}/chat/completions?token=planted", "//127.0.0.1:9/x", "/v2"]
)
def test_a_redirect_is_named_and_not_followed(status: int, target: str) -> None:
    with recorder() as server, recorder() as other:
        server.redirect = (status, target.format(other=other.url))
        with pytest.raises(ConfigError, match="redirects to http://127") as caught:
            ask(server.url)
        embed = open_embedder("m", "custom", server.url)
        assert embed is not None
        with pytest.raises(ConfigError, match="redirects"):
            embed(["secret text"])
        assert len(server.seen) == 2
        assert other.seen == []
    assert "planted" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_keyless_servers_get_no_authorization_at_all() -> None:
    with recorder() as server:
        ask(server.url, "vllm")
        ((_, headers, _),) = server.seen
    assert "Authorization" not in headers


def test_a_query_is_kept_apart_and_sent() -> None:
    with recorder() as server:
        ask(f"{server.url}/?api-version=2024&key=a%2Fb")
        ((path, _, _),) = server.seen
    assert path == "/v1/chat/completions?api-version=2024&key=a%2Fb"


def test_the_query_of_an_address_is_not_shown() -> None:
    address = parse_address("https://gateway.example/v1?key=planted-secret&x=")
    assert address.shown == "https://gateway.example/v1?key=***&x=***"
    assert "planted" not in repr(address)


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_used_and_its_password_not_shown(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorder() as proxy:
        address = proxy.url.removesuffix("/v1").replace("//", "//me:planted-pass@")
        monkeypatch.setenv(name, address)
        assert ask("http://model.invalid/v1") == "A"
        ((path, headers, _),) = proxy.seen
        assert path == "http://model.invalid/v1/chat/completions"
        assert headers["Proxy-Authorization"].startswith("Basic ")
    with pytest.raises(ChatError, match="through the proxy") as caught:
        ask("http://model.invalid/v1")
    assert "planted" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "kind"), [(407, ConfigError), (403, ConfigError), (502, ChatError)]
)
def test_a_proxy_for_https_sees_the_host_and_no_key(
    status: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorder() as proxy:
        proxy.refuses = status
        monkeypatch.setenv("HTTPS_PROXY", proxy.url.removesuffix("/v1"))
        with pytest.raises(kind, match="proxy"):
            ask("https://model.invalid/v1?key=planted")
        ((path, headers, _),) = proxy.seen
    assert path == "model.invalid:443"
    assert KEY not in str(headers)


@pytest.mark.parametrize("exempt", ["127.0.0.1", "*", "localhost,127.0.0.1"])
def test_no_proxy_exempts_hosts(exempt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", exempt)
    with recorder() as server:
        assert ask(server.url) == "A"


def test_a_proxy_that_is_not_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    with pytest.raises(ConfigError, match="socks5 proxy"):
        ask("http://model.invalid/v1")


@pytest.mark.parametrize(
    "key",
    ["sk-密钥-planted", "sk-planted\nX-Evil: 1", "sk planted", "sk-planted\x7f", "sk-“planted”"],
)
def test_a_key_that_cannot_be_sent_is_one_line_at_start(key: str) -> None:
    with pytest.raises(CredentialsError, match=r"CLM_DATA_API_KEY .* character \d+") as caught:
        open_model(
            Settings(provider="custom", base_url="http://a", model="m"), {"CLM_DATA_API_KEY": key}
        )
    assert "planted" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_doctor_says_that_a_key_cannot_be_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPENROUTER_API_KEY", "sk-planted密")
    run(["doctor", "--json"])
    out = capsys.readouterr().out
    assert "cannot be sent: its character 11 of 11" in out
    assert "planted" not in out


def test_semantic_dedup_sends_no_key_to_a_foreign_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
    with recorder() as server:
        with pytest.raises(UserError, match="DEEPSEEK_API_KEY is not sent"):
            open_embedder("m", "deepseek", server.url)
        assert server.seen == []


@pytest.mark.parametrize(
    ("yaml", "arguments"),
    [
        ("{}", ["--base-url", "http://[::1"]),
        ("{}", ["--base-url", ""]),
        ("{}", ["--base-url", "http://127.0.0.1:1/v1"]),
        ("base_url: 5", []),
        ("base_url: [a]", []),
        ("base_url: http://u:planted@127.0.0.1:1/v1", []),
        ("base_url: http://127.0.0.1:1/v1?key=planted", []),
    ],
)
def test_a_wrong_address_is_one_line_and_exit_2(
    yaml: str,
    arguments: list[str],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "clm.yaml").write_text(yaml)
    monkeypatch.setenv("DEEPSEEK_API_KEY", KEY)
    command = ["-w", str(folder), "generate", "-d", "chinese_literature", *arguments]
    assert run(command) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "planted" not in err
    assert not (folder / "clm.db").exists()
