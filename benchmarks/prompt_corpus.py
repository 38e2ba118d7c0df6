"""Synthetic prompts for benchmarks: half Chinese, half English, from templates and syllables.

A row is one of 48 relations per language with an invented name; a quarter of the rows start with a
year or a place. Lengths are like those of real prompts: Chinese 5 to 20 characters (median 10),
English 20 to 90 (median 43). One row in twenty is a planted near-duplicate: a copy of an earlier
row with one to three characters replaced, dropped or inserted, so that some are above a similarity
of 0.9 and some below. Because of the templates, most rows are somewhat similar to others, as in
real datasets.
"""

from __future__ import annotations

import random

_ZH = [
    "首都是",
    "创始人是",
    "代表作是",
    "所在的国家是",
    "官方语言是",
    "使用的货币是",
    "出生地是",
    "逝世于",
    "母校是",
    "职业是",
    "最高峰是",
    "发源于",
    "注入的海洋是",
    "毗邻的省份是",
    "建成于",
    "设计者是",
    "总部位于",
    "主要产品是",
    "现任主席是",
    "国花是",
    "所属的朝代是",
    "开国皇帝是",
    "年号是",
    "陪葬品出土于",
    "作者是",
    "主角的名字是",
    "出版社是",
    "导演是",
    "配乐由谁完成",
    "主演是",
    "获得的奖项是",
    "师从",
    "弟子中最有名的是",
    "研究领域是",
    "提出的理论是",
    "发现者是",
    "化学符号是",
    "所属的科是",
    "主要分布在",
    "的别称是",
    "的邻国是",
    "最长的河流是",
    "最大的湖泊是",
    "举办的第一届赛事在",
    "的校训是",
    "的市树是",
    "的方言属于",
    "的传统节日是",
]
_EN = (
    """The capital of {} is|The founder of {} is|The best known work of {} is
The country in which {} lies is|The official language spoken in {} is|The currency of {} is the
{} was born in the city of|{} died in the town of|The university that {} attended is
By profession, {} is a|The highest mountain of {} is|The river {} rises in the hills of
The river {} flows into the|The province next to {} is called|The bridge at {} was designed by
The headquarters of {} are in|The main product of {} is|The current president of {} is
The national flower of {} is the|The dynasty to which {} belonged was|The first emperor of {} was
The treasure of {} was dug up at|The author of the novel {} is|The hero of the tale {} is named
The publisher of {} is|The film {} was directed by|The music for {} was written by
The leading role in {} was played by|The prize that {} was awarded is the|The teacher of {} was
The most famous pupil of {} was|The field in which {} works is|The theory put forward by {} is
The element {} was discovered by|The chemical symbol of {} is|The plant {} is of the family
The bird {} is found mainly in|Another name for {} is|The country that borders {} is
The longest river in {} is|The largest lake in {} is|The first games of {} were held in
The motto of the school {} is|The tree that stands for {} is the|The dialect of {} belongs to
The feast kept each year in {} is|The port through which {} trades is|The patron of {} is
""".replace("\n", "|")
    .strip("|")
    .split("|")
)
_ONSETS = [
    "b",
    "br",
    "c",
    "ch",
    "d",
    "dr",
    "f",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "qu",
    "r",
    "s",
    "sh",
    "st",
    "t",
    "th",
    "tr",
    "v",
    "w",
    "z",
]
_CORES = ["a", "e", "i", "o", "u", "ai", "ea", "ie", "ou", "ar", "en", "il", "on", "ur"]
_ENDS = ["", "", "", "n", "r", "s", "th", "l", "m", "ck"]


def common_han() -> list[str]:
    """The 3,755 characters of level 1 of GB 2312."""
    cells = ((high, low) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    texts = (bytes(cell).decode("gb2312", errors="ignore") for cell in cells)
    return [text for text in texts if text]


def prompts(size: int, seed: int = 0) -> list[str]:
    """Prompts, alternately Chinese and English, with near-duplicates among them.

    Args:
        size: Number of rows.
        seed: Random seed. A larger corpus starts with the rows of a smaller one.
    """
    rng = random.Random(seed)
    han = common_han()
    rng.shuffle(han)
    rows: list[str] = []
    while len(rows) < size:
        if len(rows) > 20 and rng.random() < 0.05:
            rows.append(_near_duplicate(rng, rows[rng.randrange(len(rows))], han))
        elif len(rows) % 2:
            rows.append(_english(rng))
        else:
            rows.append(_chinese(rng, han))
    return rows


def _chinese(rng: random.Random, han: list[str]) -> str:
    # Squaring favors the front of the list: a few characters are far more frequent than others.
    name = "".join(
        han[int(rng.random() ** 2 * len(han))] for _ in range(rng.choice((2, 3, 3, 4, 5)))
    )
    relation = rng.choice(_ZH)
    text = name + (relation if relation.startswith("的") else "的" + relation)
    chance = rng.random()
    if chance < 0.15:
        return f"{rng.randrange(1000, 2030)}年{text}"
    if chance < 0.25:
        return f"在{''.join(rng.choices(han, k=rng.choice((2, 3))))}，{text}"
    return text


def _english(rng: random.Random) -> str:
    text = rng.choice(_EN).format(_name(rng))
    chance = rng.random()
    if chance < 0.15:
        return f"In {rng.randrange(1000, 2030)}, {text[0].lower()}{text[1:]}"
    if chance < 0.25:
        return f"In {_name(rng)}, {text[0].lower()}{text[1:]}"
    return text


def _name(rng: random.Random) -> str:
    words = []
    count = rng.choice((1, 2, 2, 2, 3))
    for _ in range(count):
        syllables = range(rng.choice((3, 4)) if count == 1 else rng.choice((2, 2, 3)))
        word = "".join(rng.choice(_ONSETS) + rng.choice(_CORES) for _ in syllables)
        words.append((word + rng.choice(_ENDS)).capitalize())
    return " ".join(words)


def _near_duplicate(rng: random.Random, text: str, han: list[str]) -> str:
    letters = list(text)
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(letters))
        new = (
            rng.choice(han) if letters[at] > "\u2fff" else rng.choice("abcdefghijklmnopqrstuvwxyz")
        )
        letters[at : at + rng.choice((0, 1, 1))] = rng.choice(([], [new], [new]))
    return "".join(letters) or text
