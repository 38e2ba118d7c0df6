"""YAML files as people write them: domains.yaml, clm.yaml, lists of probes."""

from __future__ import annotations

from pathlib import Path

import pytest

from clm_data.domain import load_domains
from clm_data.errors import ConfigError, InputFileError
from clm_data.files import read_yaml
from clm_data.resources import resource

FACT = "{prompt: p, subject: s, ground_truth: g, target_new: t, rephrase_prompt: r}"
DOMAIN = f"""\
- id: rivers
  zh: 河流
  en: rivers
  quota: 3
  ask_for:
  - {{zh: 长江, en: the Yangtze}}
  examples:
  - {{zh: {FACT}, en: {FACT}}}
"""


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize(
    "word", ["no", "NO", "on", "off", "yes", "y", "2020-01-02", "12:30", "010"]
)
def test_words_that_yaml_1_1_retypes_are_texts(tmp_path: Path, word: str) -> None:
    assert read_yaml(written(tmp_path, f"a: {word}")) == {"a": word}
    (domain,) = load_domains(
        written(tmp_path, DOMAIN.replace("en: rivers", f"en: {word}"))
    ).values()
    assert domain.en == word


def test_other_scalars_have_their_types(tmp_path: Path) -> None:
    text = "a: true\nb: False\nc: -12\nd: 0\ne: 1.5\nf: null\ng: ~\nh: '1'\ni: 1.0e-4"
    assert read_yaml(written(tmp_path, text)) == {
        "a": True,
        "b": False,
        "c": -12,
        "d": 0,
        "e": 1.5,
        "f": None,
        "g": None,
        "h": "1",
        "i": 1e-4,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", r"file\.yaml:4: .*'c' appears twice; keep one"),
        ("- {a: 1, a: 2}\n", r"file\.yaml:1: .*'a' appears twice"),
        ("a:\n\tb: 1\n", r"file\.yaml:2: .*indent with spaces"),
        ("a: [\n", r"file\.yaml:2: cannot be read as YAML"),
        ("a: 1\nb: 长".encode("gb18030"), r"file\.yaml:2: .*save the file as UTF-8"),
        (
            "a: &a ["
            + "x, " * 20
            + "]\n"
            + "".join(
                f"{chr(98 + n)}: &{chr(98 + n)} [{('*' + chr(97 + n) + ', ') * 20}]\n"
                for n in range(6)
            ),
            "more than 1,000,000 values",
        ),
        ("a: &a [*a]\n", "more than 1,000,000 values"),
        ("a: !!python/object:os.system x\n", "cannot be read as YAML"),
        (b"a: \x00\n", "cannot be read as YAML"),
    ],
)
def test_the_error_has_one_line_with_the_place(
    tmp_path: Path, text: str | bytes, message: str
) -> None:
    with pytest.raises(InputFileError, match=message) as caught:
        read_yaml(written(tmp_path, text))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("quota: 3", "qouta: 3", "domain rivers"),
        (
            "  quota: 3",
            "  quota: 3\n  avoids: []",
            "unknown key 'avoids'; did you mean avoid",
        ),
        (
            "en: the Yangtze",
            "eng: the Yangtze, en: x",
            r"ask_for\.0\.eng: unknown key 'eng'",
        ),
        (
            "subject: s, ",
            "subject: s, subjects: s, ",
            r"zh\.subjects: .*did you mean sub",
        ),
        ("en: rivers", "en: 1984", "en: expected text, found 1984; put it in quotation marks"),
        ("en: rivers", "en: true", "en: expected text, found True; put it in quotation marks"),
        ("quota: 3", "quota: true", "quota: expected a number, found true"),
        ("quota: 3", "quota: many", "quota: .*valid integer"),
        ("id: rivers", "id: rivers\n  id: lakes", "'id' appears twice"),
    ],
)
def test_a_wrong_domain_is_named_with_its_key(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_domains(written(tmp_path, DOMAIN.replace(old, new)))
    assert "\n" not in str(caught.value)


def test_the_shipped_domains_are_read() -> None:
    assert len(load_domains(resource("domains.yaml"))) > 20


def test_a_device_is_no_yaml_file() -> None:
    with pytest.raises(ConfigError, match="not a regular file"):
        load_domains(Path("/dev/zero"))
