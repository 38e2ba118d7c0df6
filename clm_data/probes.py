"""Read and check locality probes from the bank, a file, a folder or the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clm_data.errors import InputFileError
from clm_data.files import read_yaml
from clm_data.languages import LANGUAGE_INFO, normalize_text
from clm_data.records import (
    LANGUAGES,
    PROBE_FIELDS,
    Language,
    LooseProbe,
    Probe,
    ProbePair,
    Problem,
    Rejection,
    StageResult,
)
from clm_data.resources import bank_path
from clm_data.sources import candidates_of, read_file
from clm_data.sources.files import RawFile, read_rows, rows_in_memory
from clm_data.sources.readers import language_keys
from clm_data.text import number_as_text
from clm_data.validate.form import is_untranslated

BANK = "bank"
HUB_PREFIX = "hub:"
_HUB_TIMEOUT = 15.0
"""Timeout in seconds."""
_FILE_ENDINGS = (".json", ".jsonl", ".csv")
_PUBLISHED_PREFIX = re.compile(r"^\s*nq question\s*:\s*", re.IGNORECASE)

Sides = dict[Language, LooseProbe]
"""A probe as read: its sides by language, one of which may be missing."""


def read_probes(
    spec: str, folder: Path = Path(), encoding: str | None = None
) -> StageResult[ProbePair]:
    """Read a source of probes.

    Args:
        spec: ``bank``, ``hub:ID`` of a dataset, a file, or a folder of files. A file is in any
            format of :data:`clm_data.sources.FORMATS`, or a YAML or JSON list of
            ``{zh: {loc, loc_ans}, en: {loc, loc_ans}}``. The published Chinese and English files
            in a folder are paired.
        folder: Base of relative paths.
        encoding: Encoding of the files; default: found if it is certain.

    Returns:
        The cleaned probes in source order. Incomplete, untranslated and repeated ones are rejected.

    Raises:
        InputFileError: The source cannot be read, or has no usable bilingual probe.
    """
    name, (found, unread) = _read(spec, folder, encoding)
    if not found:
        raise InputFileError(f"{name} contains no locality probes (loc, loc_ans)")
    languages = {lang for sides in found for lang in sides}
    if not any(len(sides) == 2 for sides in found):
        only = "separate languages" if len(languages) == 2 else _one_language(languages)
        raise InputFileError(
            f"{name}: has probes in {only}, but each probe needs both languages; use a "
            "bilingual source, or the folder with both published files"
        )
    checked = filter_probes(found, name)
    if not checked.kept:
        reason = checked.rejected[0].problems[0].message
        raise InputFileError(f"{name}: none of its {len(found)} probes is usable: {reason}")
    return StageResult(checked.kept, (*unread, *checked.rejected))


def filter_probes(found: Iterable[Sides], name: str) -> StageResult[ProbePair]:
    """Clean probes and reject incomplete, untranslated and repeated ones.

    Args:
        found: Probes as read.
        name: Name of the source. Rejections get ids such as ``name#1``.
    """
    kept: list[ProbePair] = []
    rejected = []
    first: dict[tuple[Language, str], ProbePair] = {}
    for number, loose in enumerate(found, 1):
        sides = {lang: clean_probe(probe) for lang, probe in loose.items()}
        problem = find_problem(sides) or _repetition(sides, first)
        if problem is None:
            pair = ProbePair(zh=_complete(sides["zh"]), en=_complete(sides["en"]))
            first.update((key, pair) for key in question_keys(pair))
            kept.append(pair)
        else:
            content = {lang: probe.model_dump() for lang, probe in loose.items()}
            rejected.append(rejection(f"{name}#{number}", problem, content))
    return StageResult(tuple(kept), tuple(rejected))


def clean_probe(probe: LooseProbe) -> LooseProbe:
    """Strip whitespace and the prefix of the published English questions."""
    return LooseProbe(
        loc=None if probe.loc is None else _PUBLISHED_PREFIX.sub("", probe.loc).strip(),
        loc_ans=None if probe.loc_ans is None else probe.loc_ans.strip(),
    )


def find_problem(sides: Sides) -> Problem | None:
    """The reason why a cleaned probe cannot be used: an empty field or a wrong language."""
    for lang in LANGUAGES:
        for field in PROBE_FIELDS:
            text = getattr(sides[lang], field) if lang in sides else None
            if not text:
                message = f"the {LANGUAGE_INFO[lang].en} side of the probe has no {field}"
                return Problem(code="empty-field", message=message, lang=lang, field=field)
    for lang in LANGUAGES:
        for field in PROBE_FIELDS:
            text = str(getattr(sides[lang], field))
            if is_untranslated(text, field, lang):
                message = f"not {LANGUAGE_INFO[lang].en}: '{text}'"
                return Problem(code="untranslated-probe", message=message, lang=lang, field=field)
    return None


def question_keys(pair: ProbePair) -> list[tuple[Language, str]]:
    """Keys of a probe's two questions. Probes that share a key are repetitions."""
    return [(lang, normalize_text(getattr(pair, lang).loc)) for lang in LANGUAGES]


def rejection(id: str, problem: Problem, content: Any, domain: str | None = None) -> Rejection:
    """Reject a probe for a problem."""
    return Rejection(stage="locality", id=id, domain=domain, problems=(problem,), content=content)


def probe_sides(pair: ProbePair) -> Sides:
    """The sides of a probe by language."""
    return {lang: LooseProbe(**getattr(pair, lang).model_dump()) for lang in LANGUAGES}


def _repetition(sides: Sides, first: dict[tuple[Language, str], ProbePair]) -> Problem | None:
    pair = ProbePair(zh=_complete(sides["zh"]), en=_complete(sides["en"]))
    for key in question_keys(pair):
        if key in first:
            earlier = first[key].id
            message = f"same question as {earlier}: '{key[1]}'"
            return Problem(
                code="repeated-probe", message=message, lang=key[0], field="loc", twin=earlier
            )
    return None


def _complete(probe: LooseProbe) -> Probe:
    return Probe(loc=probe.loc or "", loc_ans=probe.loc_ans or "")


def _one_language(languages: set[Language]) -> str:
    return "Chinese only" if languages == {"zh"} else "English only"


ProbeRows = tuple[list[Sides], tuple[Rejection, ...]]
"""Probes as read, and rejections of rows that could not be read."""


def _read(spec: str, folder: Path, encoding: str | None) -> tuple[str, ProbeRows]:
    if spec == BANK:
        return BANK, _from_rows(_yaml_rows(bank_path("probes.yaml")), BANK)
    if spec.startswith(HUB_PREFIX):
        return spec, _from_files([_hub_rows(spec.removeprefix(HUB_PREFIX))])
    path = folder / Path(spec).expanduser()
    if path.suffix.lower() in (".yaml", ".yml"):
        return path.name, _from_rows(_yaml_rows(path), path.name)
    if path.is_dir():
        names = sorted(file for file in path.iterdir() if file.suffix.lower() in _FILE_ENDINGS)
        return path.name, _from_files([read_rows(file, encoding) for file in names])
    return path.name, _from_files([read_rows(path, encoding)])


def _is_bare(row: Any) -> bool:
    """Whether a row has a probe but no fact of any format."""
    keys = language_keys(list(map(str, row))) if isinstance(row, dict) else {}
    sides = [row[key] for key in keys.values() if isinstance(row[key], dict)]
    facts = ("prompt", "src", "requested_rewrite")
    return any("loc" in side for side in sides) and not any(
        name in side for side in sides for name in facts
    )


def _from_rows(rows: Sequence[Any], name: str) -> ProbeRows:
    found: list[Sides] = []
    unread = []
    for number, row in enumerate(rows, 1):
        try:
            sides = {lang: row[key] for lang, key in language_keys(list(map(str, row))).items()}
            found.append(
                {
                    lang: LooseProbe(**{field: _text(side.get(field)) for field in PROBE_FIELDS})
                    for lang, side in sides.items()
                }
            )
        except (ValidationError, TypeError, AttributeError):
            message = "expected {zh: {loc, loc_ans}, en: {loc, loc_ans}} with text values"
            problem = Problem(code="unreadable-answer", message=message)
            unread.append(rejection(f"{name}#{number}", problem, row))
    return found, tuple(unread)


def _text(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return number_as_text(value) if is_number else value


def _from_files(raw: Sequence[RawFile]) -> ProbeRows:
    """Probes of files: rows that are probes, or else the probes of all candidates in the files."""
    if len(raw) == 1 and any(_is_bare(row) for row in raw[0].rows):
        return _from_rows(raw[0].rows, raw[0].name)
    read = candidates_of([read_file(file) for file in raw])
    found: list[Sides] = []
    unread = [item.model_copy(update={"stage": "locality"}) for item in read.rejected]
    for candidate in read.kept:
        probes = {lang: candidate.probe(lang) for lang in LANGUAGES}
        sides = {lang: probe for lang, probe in probes.items() if probe is not None}
        if sides:
            found.append(sides)
        else:
            problem = Problem(code="empty-field", message="the row has no locality probe")
            unread.append(rejection(candidate.id, problem, candidate.model_dump()))
    return found, tuple(unread)


def _yaml_rows(path: Path) -> list[Any]:
    rows = read_yaml(path)
    if not isinstance(rows, list):
        raise InputFileError(f"{path}: expected a list of probes")
    return rows


def _hub_rows(name: str) -> RawFile:
    """Rows of a Hub dataset, of configuration ``parallel`` and split ``test`` or else the first."""
    from datasets.inspect import get_dataset_config_names
    from datasets.load import load_dataset
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:  # fails fast; load_dataset would retry for minutes
            HfApi(library_name="clm-data").dataset_info(name, timeout=_HUB_TIMEOUT)
        configurations = get_dataset_config_names(name)
        chosen = "parallel" if "parallel" in configurations else configurations[0]
        splits = load_dataset(name, chosen)
        split = splits["test"] if "test" in splits else splits[next(iter(splits))]
        return rows_in_memory(split.to_list(), name)
    except Exception as error:  # datasets raises the errors of all its backends
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputFileError(
            f"{HUB_PREFIX}{name} cannot be read ({reason}); check the id and the network "
            "(HF_TOKEN for a private dataset), or use a file"
        ) from error
