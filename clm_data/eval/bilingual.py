"""Texts in Chinese and English that the figures and the report share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from clm_data.domain import Domain, load_domains
from clm_data.records import Language
from clm_data.resources import resource


@dataclass(frozen=True)
class BilingualText:
    """A text in both languages."""

    zh: str
    en: str

    def text(self, lang: Language) -> str:
        """The text in one language."""
        return self.zh if lang == "zh" else self.en


LANGUAGE_NAMES = {
    "zh": BilingualText("中文", "Chinese"),
    "en": BilingualText("英文", "English"),
    "mix": BilingualText("中英双语", "both languages"),
}
"""Names of editing languages."""
EVALUATION_MEASURES = {
    "reliability": BilingualText("可靠性", "reliability"),
    "generality": BilingualText("泛化性", "generality"),
    "locality": BilingualText("局部性", "locality"),
}
"""Names of the paper's measures."""
GEOMETRY_MEASURES = {
    "cosine": BilingualText("余弦相似度", "cosine similarity"),
    "relative_error": BilingualText("相对误差", "relative error"),
    "angle_left_mean": BilingualText("左主夹角均值（度）", "left principal angle, mean (degrees)"),
    "angle_left_max": BilingualText("左主夹角最大值（度）", "left principal angle, max. (degrees)"),
    "angle_right_mean": BilingualText(
        "右主夹角均值（度）", "right principal angle, mean (degrees)"
    ),
    "angle_right_max": BilingualText(
        "右主夹角最大值（度）", "right principal angle, max. (degrees)"
    ),
    "jaccard_rows": BilingualText("杰卡德系数（输出维度）", "Jaccard index, output dimensions"),
    "jaccard_columns": BilingualText("杰卡德系数（输入维度）", "Jaccard index, input dimensions"),
}
"""Measures of ``geometry.csv`` that are shown, in order."""
FACTOR_PARTS = {
    "residuals": BilingualText("残差（写入的内容）", "residuals (what is written)"),
    "keys": BilingualText("键（写入的位置）", "keys (where it is written)"),
    "raw-keys": BilingualText("求解前的键", "keys before the solve"),
    "contributions": BilingualText(
        "单条事实的贡献（残差与键之积）", "contributions (residual × key)"
    ),
}
"""Values of the column ``part`` of ``factors.csv``."""
FACTOR_PAIRINGS = {
    "same-fact": BilingualText("同一事实，中文与英文", "same fact, Chinese vs. English"),
    "other-fact": BilingualText("不同事实，中文与英文", "different facts, Chinese vs. English"),
    "other-fact-zh": BilingualText("不同事实，均为中文", "different facts, both Chinese"),
    "other-fact-en": BilingualText("不同事实，均为英文", "different facts, both English"),
    "whole": BilingualText("整个权重改变", "whole weight change"),
}
"""Values of the column ``pairing`` of ``factors.csv``."""
TRANSFER_FEATURES = {
    "contribution_cosine": BilingualText("贡献的余弦", "cosine of contributions"),
    "residual_cosine": BilingualText("残差的余弦", "cosine of residuals"),
    "key_cosine": BilingualText("键的余弦", "cosine of keys"),
    "size": BilingualText("贡献的范数", "norm of the contribution"),
    "overlap_left": BilingualText("与另一语言左子空间的重合", "overlap, left subspace"),
    "overlap_right": BilingualText("与另一语言右子空间的重合", "overlap, right subspace"),
}
"""Features of ``transfer.csv``: values of its column ``measure``."""
TRANSFER_CRITERIA = {
    "exact": BilingualText("反事实答案逐词元命中", "every token of the new answer"),
    "prefers": BilingualText("反事实答案概率更高", "new answer more likely than the true one"),
}
"""Values of the column ``criterion`` of ``transfer.csv``: when a fact counts as transferred."""
NEURON_SETS = {
    "weight_rows": BilingualText("权重，输出维度", "weights, output dimensions"),
    "weight_columns": BilingualText("权重，MLP 神经元", "weights, MLP neurons"),
    "actual": BilingualText("MLP 输出，实际变化", "MLP outputs, actual change"),
    "expected": BilingualText("MLP 输出，预期变化", "MLP outputs, expected change"),
}
"""Values of the column ``kind`` of ``venn.csv``: what the neurons are ranked by."""


def edited_in(edit: str) -> BilingualText:
    """The editing language, as in legends and panel titles."""
    name = LANGUAGE_NAMES[edit]
    return BilingualText(f"编辑语言：{name.zh}", f"edited in {name.en}")


def measured_in(lang: Language) -> BilingualText:
    """The language that a value was measured in, as in legends."""
    name = LANGUAGE_NAMES[lang]
    return BilingualText(f"测量语言：{name.zh}", f"measured in {name.en}")


def batch_of(size: str) -> BilingualText:
    """A batch size, as in legends and headings."""
    return BilingualText(f"每批 {size} 条", f"batch size {size}")


def bundled_domains() -> dict[str, Domain]:
    """The domains that ship with the package, by id."""
    return load_domains(resource("domains.yaml"))


def domain_title(name: str | None, domains: Mapping[str, Domain]) -> BilingualText:
    """A domain's title; its id if it is not among the given domains."""
    if name is None or name == "unknown":
        return BilingualText("未注明", "not stated")
    domain = domains.get(name)
    return BilingualText(name, name) if domain is None else BilingualText(domain.zh, domain.en)
