"""Inputs made of a seed: valid data of many shapes, then damaged."""

from __future__ import annotations

import csv
import io
import json
import random
import zipfile
from collections.abc import Callable
from typing import Any

FIELDS = ("prompt", "subject", "ground_truth", "target_new", "rephrase_prompt")
_TEXTS = (
    '鲁迅的原名是|Lu Xun|周树人|“翠翠”|他说"好"|it\'s|a\\b|，：｛｝|<think>|</think>|1881|🙂'
    "|\u200b|\n|{|]|~|=1+1"
).split("|")
_TOKENS = (
    "{ } [ ] \" ' “ ” , : ， ： ｛ ｝ \\ \\u \\ud83d \n ``` null NaN 1e999 -0 // /* "
    "<think> </think> <thought> ◁think▷ [THINK] <|channel|>final<|message|> final 最终答案： "
    "& *a &a !!python ? | > - \t \r \x00 ; sep=; # --- ... ,, '' 9999999999999999999 true "
    "[] {} zh en prompt"
).split(" ")
_BEFORE = (
    "",
    "",
    "好的：\n",
    "<think>想</think>",
    "想。</think>",
    "<|channel|>analysis<|message|>x<|end|><|channel|>final<|message|>",
    "最终答案：\n",
)
_CONTENTS = ("答", "答", "答", None, "", 1, ["a"], [{"type": "text", "text": "答"}], {"a": 1})
_REASONING = ("reasoning_content", "reasoning", "reasoning_details", "refusal", "error")
_USAGE = ({"prompt_tokens": 1}, None, [], {"completion_tokens_details": []}, "x")

Make = Callable[[int], bytes]


def fact(rng: random.Random, number: int) -> dict[str, Any]:
    """A fact; every text names its entry's number."""
    values = {name: f"{rng.choice(_TEXTS)}标记{number}。" for name in FIELDS}
    if rng.random() < 0.1:
        values[rng.choice(FIELDS)] = rng.choice([None, 7, 1.5, True, ["x"], {"a": 1}])  # type: ignore[assignment]
    return values


def entry(rng: random.Random, number: int) -> dict[str, Any]:
    """An entry in one of the shapes that models write."""
    zh, en = fact(rng, number), fact(rng, number)
    shape = rng.randrange(6)
    if shape == 0:
        return zh
    if shape == 1:
        return {f"zh_{k}": v for k, v in zh.items()} | {f"en_{k}": v for k, v in en.items()}
    if shape == 2:
        return {"id": number, "zh": zh, "en": None}
    return {"zh": zh, "en": en}


def damaged(rng: random.Random, data: bytes) -> bytes:
    """Bytes with some of them removed, repeated, replaced or inserted; sometimes as they are."""
    if rng.random() < 0.15:
        return data
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        size = rng.choice((1, 1, 2, 5, 20, 200))
        kind = rng.randrange(7)
        if kind == 0:
            del out[at : at + size]
        elif kind == 1:
            out[at:at] = rng.choice(_TOKENS).encode() * rng.choice((1, 1, 1, 3, 70))
        elif kind == 2:
            out[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 3:
            out[at:at] = out[at : at + size]
        elif kind == 4 and len(out) > 1:
            other = rng.randrange(len(out))
            out[at:at] = out[other : other + size]
        elif kind == 5 and rng.random() < 0.3:
            del out[at:]
        elif kind == 6 and rng.random() < 0.05:
            out[at:at] = rng.choice(_TOKENS).encode() * 20_000
    return bytes(out)


def _dumps(rng: random.Random, value: Any) -> str:
    text = json.dumps(value, ensure_ascii=rng.random() < 0.1, indent=rng.choice((None, None, 1)))
    style = rng.randrange(8)
    if style == 0:
        text = text.replace('": ', '"：').replace('", "', '"，"')
    elif style == 1:
        text = text.replace("}", ",}")
    elif style == 2:
        text = text.replace('"', "'")
    elif style == 3:
        text = text.replace('\\"', '"')
    return text


def answer(seed: int) -> bytes:
    """The answer of a model."""
    rng = random.Random(seed)
    entries = [entry(rng, seed % 1000 * 10 + number) for number in range(rng.randrange(4))]
    wraps: tuple[Callable[[], str], ...] = (
        lambda: _dumps(rng, entries),
        lambda: "\n".join(_dumps(rng, item) for item in entries),
        lambda: _dumps(rng, {"entries": entries}),
        lambda: "\n".join(f"```json\n{_dumps(rng, item)}\n```" for item in entries),
        lambda: _dumps(rng, {f"item {n}": item for n, item in enumerate(entries)}),
    )
    text = rng.choice(wraps)()
    thought = f"<thought>{_dumps(rng, entries)}</thought>" if rng.random() < 0.1 else ""
    before = thought + rng.choice(_BEFORE)
    return damaged(rng, (before + text).encode())


def body(seed: int) -> bytes:
    """The body of an HTTP response."""
    rng = random.Random(seed)
    content: Any = rng.choice(_CONTENTS)
    message: Any = {"role": "assistant", "content": content}
    if rng.random() < 0.3:
        key = rng.choice(_REASONING)
        message[key] = rng.choice(("想", None, [{"type": "thinking", "thinking": [{}]}], [1], {}))
    choice: Any = {"index": 0, "message": message}
    choice["finish_reason"] = rng.choice(("stop", "stop", "stop", "length", "error", None, 1, []))
    usage: Any = rng.choice(_USAGE)
    value: Any = {"id": "x", "model": "m", "choices": [choice], "usage": usage}
    if rng.random() < 0.2:
        value = rng.choice(([], {}, None, {"error": {"code": 429}}, {"error": []}, {"choices": {}}))
    data = json.dumps(value, ensure_ascii=False).encode()
    return data if rng.random() < 0.5 else damaged(rng, data)


def rows_json(seed: int) -> bytes:
    """A JSON list of rows in one of the published layouts."""
    rng = random.Random(seed)
    return damaged(rng, json.dumps(_rows(rng), ensure_ascii=False, indent=1).encode())


def rows_jsonl(seed: int) -> bytes:
    """The same as JSON Lines."""
    rng = random.Random(seed)
    lines = [json.dumps(row, ensure_ascii=False) for row in _rows(rng)]
    return damaged(rng, "\n".join(lines).encode(rng.choice(("utf-8", "utf-8-sig", "utf-16"))))


def _rows(rng: random.Random) -> list[Any]:
    count = rng.randrange(1, 5)
    kind = rng.randrange(4)
    if kind == 0:
        return [{"case_id": n, **fact(rng, n)} for n in range(count)]
    if kind == 1:
        return [{"zh": fact(rng, n), "en": fact(rng, n)} for n in range(count)]
    if kind == 2:
        return [
            {"case_id": n, "requested_rewrite": {"prompt": "{} 的首都是", "subject": "中国"}}
            | {"target_new": {"str": "上海"}, "target_true": {"str": "北京"}, "x": n}
            for n in range(count)
        ]
    return [rng.choice((fact(rng, n), 1, None, [], {"prompt": n})) for n in range(count)]


def table_csv(seed: int) -> bytes:
    """A CSV file."""
    rng = random.Random(seed)
    out = io.StringIO(newline="")
    delimiter, line_end = rng.choice(",,;\t"), rng.choice(("\r\n", "\n"))
    writer = csv.writer(out, delimiter=delimiter, lineterminator=line_end)
    pattern = rng.choice(("zh_{}", "{}", "{}_en", "{}_zh"))
    writer.writerow([pattern.format(name) for name in FIELDS])
    for number in range(rng.randrange(1, 4)):
        writer.writerow([f"{value}" for value in fact(rng, number).values()])
    text = out.getvalue()
    return damaged(rng, text.encode(rng.choice(("utf-8", "utf-8-sig", "gb18030")), "replace"))


def damaged_file(valid: bytes) -> Make:
    """Makes damaged copies of a file."""
    return lambda seed: damaged(random.Random(seed), valid)


def damaged_zip(valid: bytes) -> Make:
    """Makes copies of a ZIP file in which one member is damaged, or the whole."""

    def make(seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.2:
            return damaged(rng, valid)
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(valid)) as old, zipfile.ZipFile(out, "w") as new:
            names = old.namelist()
            chosen = rng.choice([n for n in names if n.startswith("xl")] or names)
            for name in names:
                if name == chosen and rng.random() < 0.05:
                    continue
                data = old.read(name)
                new.writestr(name, damaged(rng, data) if name == chosen else data)
        return out.getvalue()

    return make
