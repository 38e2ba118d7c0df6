"""Finds what a name means: an entry, an object of an answer, a turn, a dialogue or a row."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clm_data.errors import UnknownNameError
from clm_data.store import Dialogue
from clm_data.tracing.contents import Contents, Located

_PROBE = "/probe"
"""End of the id of a rejected probe, which belongs to an entry."""
_DIALOGUE = re.compile(r"(?P<dialogue>[^/]+/\d+)")
_TURN = re.compile(rf"{_DIALOGUE.pattern}/(?P<turn>\d+)")
_NEAREST, _NAMED = 3, 5
_FORMS = "pass the id of an entry, DOMAIN/DIALOGUE, DOMAIN/DIALOGUE/TURN, or FILE#ROW"


@dataclass(frozen=True)
class Meaning:
    """What a name means; exactly one of the first two is given.

    Attributes:
        located: Entries, objects of answers, or rows.
        dialogue: A dialogue.
        turn: A turn of the dialogue; None: all of them.
    """

    located: tuple[Located, ...] = ()
    dialogue: Dialogue | None = None
    turn: int | None = None


def meaning_of(name: str, contents: Contents) -> Meaning | None:
    """What a name means; None if nothing in the store has it."""
    id_ = name.removesuffix(_PROBE)
    found = [each for each in contents.located if each.is_used and each.found.id == id_]
    found = found or [each for each in contents.located if name in each.names]
    if found:
        return Meaning(tuple(found))
    if name in contents.dialogues:
        return Meaning(dialogue=contents.dialogues[name])
    match = _TURN.fullmatch(name)
    if match and match["dialogue"] in contents.dialogues:
        return Meaning(dialogue=contents.dialogues[match["dialogue"]], turn=int(match["turn"]))
    return None


def unknown(name: str, contents: Contents, damaged: Sequence[str] = ()) -> UnknownNameError:
    """The error for a name that means nothing, with the nearest names that do."""
    place, _, object_ = name.partition("#")
    if (turn := _TURN.fullmatch(place)) and turn["dialogue"] in contents.dialogues and object_:
        numbered = [n for each in contents.located for n in each.names if n.startswith(f"{place}#")]
        return _unknown("object", name, _nearest(name, numbered), damaged, "the answer has none")
    match = _DIALOGUE.fullmatch(place) or turn
    domains = {each.domain for each in contents.dialogues.values()}
    if match and match["dialogue"].rpartition("/")[0] in domains:
        dialogue = match["dialogue"]
        same = [each for each in contents.dialogues if _domain(each) == _domain(dialogue)]
        return _unknown("dialogue", dialogue, _nearest(dialogue, same), damaged)
    names = {each.found.id for each in contents.located if each.is_used}
    names.update(contents.dialogues, (n for each in contents.located for n in each.names))
    begun = [each for each in names if len(name) > len("clm-") and each.startswith(name)]
    empty = "" if names else "the store is empty; fill it with clm-data generate or clm-data import"
    return _unknown("entry", name, sorted(begun)[:_NEAREST] or names, damaged, empty or _FORMS)


def unknown_turn(name: str, turns: Iterable[int], damaged: Sequence[str] = ()) -> UnknownNameError:
    """The error for a turn that a dialogue does not have."""
    dialogue = name.rpartition("/")[0]
    known = _nearest(name, [f"{dialogue}/{turn}" for turn in turns])
    return _unknown("turn", name, known, damaged, f"nothing was sent in dialogue {dialogue} yet")


def _unknown(
    kind: str, name: str, known: Iterable[str], damaged: Sequence[str], otherwise: str = _FORMS
) -> UnknownNameError:
    note = ""
    if damaged:
        more = f" and {len(damaged) - _NAMED} more" if len(damaged) > _NAMED else ""
        note = f"or it is damaged: {', '.join(damaged[:_NAMED])}{more} (see clm-data doctor)"
    return UnknownNameError(kind, name, known, otherwise=otherwise, note=note)


def _nearest(name: str, names: Sequence[str]) -> list[str]:
    """The names with the nearest numbers at the end."""
    return sorted(set(names), key=lambda each: abs(_number(each) - _number(name)))[:_NEAREST]


def _number(name: str) -> int:
    digits = re.search(r"\d+\Z", name)
    return int(digits[0]) if digits else 0


def _domain(dialogue: str) -> str:
    return dialogue.rpartition("/")[0]
