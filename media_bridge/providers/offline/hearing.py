"""What a caller's words mean to a scenario: intents by weighted word stems, slot values, yes and no. Pure.

Words come from a recogniser that slips ("for" for "four", "ours" for "hours"), so longer words match when they
are near enough, and words that sound like digits count as digits among digits.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Final

NEAR: Final = 0.8
"""Similarity (`difflib` ratio) from which a heard word is a slip of the recogniser, and what it then counts."""
_SHORTEST_NEAR: Final = 4  # letters: shorter words are near to too many others

_NOT_SPOKEN = re.compile(r"['’]")
_WORD = re.compile(r"[a-z]+|\d+")


def _counted(listed: str, start: int) -> dict[str, str]:
    return {word: str(number) for number, word in enumerate(listed.split(), start)}


_UNITS = {**_counted("zero one two three four five six seven eight nine", 0), "niner": "9"}
_TEENS = _counted("ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen", 10)
_TENS = _counted("twenty thirty forty fifty sixty seventy eighty ninety", 2)
_SOUND_LIKE_DIGITS = {
    digit: str(value)
    for value, sounds in enumerate(
        ("oh o", "won", "to too", "tree", "for fore", "fife", "sicks", "", "ate", "nein")
    )
    for digit in sounds.split()
}
_TIMES = {"double": 2, "triple": 3}
_BETWEEN_DIGITS = frozenset({"uh", "um", "er", "ah", "and", "dash", "hyphen", "then"})

_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_ORDINALS = {
    **_counted("first second third fourth fifth sixth seventh eighth ninth tenth", 1),
    **_counted("eleventh twelfth thirteenth fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth", 11),
    "twentieth": "20",
    "thirtieth": "30",
}

_YES = frozenset({"yes", "yeah", "yep", "yup", "sure", "correct", "right", "exactly", "ok", "okay", "please"})
_YES |= {"absolutely", "definitely", "course", "fine", "perfect"}
_NO = frozenset({"no", "nope", "nah", "not", "wrong", "incorrect", "never", "dont", "doesnt", "isnt", "wasnt"})
_FIRST_WORD = {"yes": True, "yeah": True, "yep": True, "no": False, "nope": False, "nah": False}
_NAME = re.compile(r"\b(?:my name is|my name's|this is|i am|i'm|it is|it's|call me)\s+(.+)", re.IGNORECASE)


def words(text: str) -> list[str]:
    """Lower-case words and numbers: "What's order 74-291?" -> whats order 74 291."""
    return _WORD.findall(_NOT_SPOKEN.sub("", text.lower()))


@functools.lru_cache(maxsize=1 << 16)  # the same few words are looked for in every turn of every call
def closeness(wanted: str, heard: str) -> float:
    """How well a heard word fits a stem: 1 if it begins with it, `NEAR` if it may be a slip, else 0."""
    if heard == wanted or (len(wanted) >= 3 and heard.startswith(wanted)):
        return 1.0
    if min(len(wanted), len(heard)) < _SHORTEST_NEAR or heard[0] in "0123456789":
        return 0.0
    return NEAR if SequenceMatcher(None, wanted, heard, autojunk=False).ratio() >= NEAR else 0.0


def score(weights: Mapping[str, float], heard: Sequence[str]) -> float:
    """Sum of the weights of the stems and phrases that were heard, each as well as it fits."""
    return sum(weight * _best(_phrase(phrase), heard) for phrase, weight in weights.items())


@functools.lru_cache(maxsize=1 << 12)
def _phrase(written: str) -> tuple[str, ...]:
    return tuple(words(written))


def _best(phrase: Sequence[str], heard: Sequence[str]) -> float:
    """The best fit of a phrase anywhere in what was heard; a phrase fits as its worst word does."""
    places = range(len(heard) - len(phrase) + 1)
    fits = (min(closeness(w, h) for w, h in zip(phrase, heard[at:], strict=False)) for at in places)
    return max(fits, default=0.0)


def digits(heard: Sequence[str], shortest: int = 1, longest: int = 0) -> tuple[str | None, str]:
    """Find a string of digits, spoken as digits or as words: "seven four two ninety one" -> 74291.

    Args:
        shortest, longest: how many digits are wanted; `longest` 0: any number.
    Returns:
        The digits, or None; and, where there were some but too few or many, the longest run that was heard.
        Of several that fit the last counts, because callers correct themselves.
    """
    runs = _digit_runs(heard)
    every = [item for run in runs for item in run]
    for run in (*reversed(runs), every):
        fitting = [d for d in _trimmings(run) if len(d) >= shortest and (not longest or len(d) <= longest)]
        if fitting:
            return (fitting[0] if longest else fitting[-1]), ""
    sure = ["".join(d for d, weak in run if not weak) for run in runs]
    return None, max(sure, key=len, default="")


def _digit_runs(heard: Sequence[str]) -> list[list[tuple[str, bool]]]:
    """Stretches of (digits, whether they only sound like digits)."""
    runs: list[list[tuple[str, bool]]] = [[]]
    times = 1
    at = 0
    while at < len(heard):
        word = heard[at]
        following = heard[at + 1] if at + 1 < len(heard) else ""
        at += 1
        item = _number(word, following)
        if word in _TIMES and _number(following, ""):
            times = _TIMES[word]
        elif item is not None:
            value, weak, taken = item
            runs[-1].append((value * times, weak))
            times = 1
            at += taken
        elif word not in _BETWEEN_DIGITS and runs[-1]:
            runs.append([])
    return [run for run in runs if any(not weak for _, weak in run)]


def _number(word: str, following: str) -> tuple[str, bool, int] | None:
    """Digits of a word, whether it only sounds like digits, and how many following words belong to it."""
    if word.isdigit():
        return word, False, 0
    if word in _UNITS:
        return (_UNITS[word] + "00", False, 1) if following == "hundred" else (_UNITS[word], False, 0)
    if word in _TEENS:
        return _TEENS[word], False, 0
    if word in _TENS:
        unit = _UNITS.get(following, "0")
        return (_TENS[word] + "0", False, 0) if unit == "0" else (_TENS[word] + unit, False, 1)
    if word in _SOUND_LIKE_DIGITS:
        return _SOUND_LIKE_DIGITS[word], True, 0
    return next(((d, True, 0) for unit, d in _UNITS.items() if closeness(unit, word) == NEAR), None)


def _trimmings(run: Sequence[tuple[str, bool]]) -> Iterable[str]:
    """The run with ever fewer of the words at its ends that only sound like digits, longest first."""
    sure = [i for i, (_, weak) in enumerate(run) if not weak]
    if not sure:
        return []
    ends = [(a, b) for a in range(sure[0] + 1) for b in range(sure[-1] + 1, len(run) + 1)]
    found = ["".join(d for d, _ in run[a:b]) for a, b in sorted(ends, key=lambda e: e[0] - e[1])]
    return found


def date(heard: Sequence[str]) -> str | None:
    """A day as it is said: "today", "tomorrow", "Friday", "next Friday", "May 3". No clock: whose "Friday" that
    is, the tool must know."""
    for at, word in enumerate(heard):
        if word in ("today", "tonight"):
            return "today"
        if closeness("tomorrow", word):
            after = list(heard[max(0, at - 2) : at]) == ["day", "after"]
            return "the day after tomorrow" if after else "tomorrow"
        day = next((d for d in _WEEKDAYS if word in (d, d + "s")), None)
        day = day or next((d for d in _WEEKDAYS if closeness(d, word)), None)
        if day:
            return ("next " if at and heard[at - 1] == "next" else "") + day.capitalize()
        if word in _MONTHS and (number := _day_near(heard, at)):
            return f"{word.capitalize()} {number}"
    return None


def _day_near(heard: Sequence[str], month: int) -> int | None:
    """The day of the month, after its name ("May third") or before it ("the third of May")."""
    after, before = heard[month + 1 : month + 4], heard[max(0, month - 4) : month]
    numbers = (_day_at(around, at) for around in (after, before) for at in range(len(around)))
    return next((number for number in numbers if 1 <= number <= 31), None)


def _day_at(heard: Sequence[str], at: int) -> int:
    """The number that begins at a word, ordinal or cardinal; 0 if none does."""
    word, following = heard[at], heard[at + 1] if at + 1 < len(heard) else ""
    if word in _TENS and following in _ORDINALS:
        return int(_TENS[word]) * 10 + int(_ORDINALS[following])
    if word in _ORDINALS:
        return int(_ORDINALS[word])
    spoken = _number(word, following)
    return int(spoken[0]) if spoken and not spoken[1] else 0


def yes_no(heard: Sequence[str]) -> bool | None:
    """Whether the caller agrees; None when that was not said. "That's not right" is a no."""
    if not heard:
        return None
    if heard[0] in _FIRST_WORD:
        return _FIRST_WORD[heard[0]]
    if heard == ["know"] or any(word in _NO for word in heard):
        return False
    return True if any(word in _YES for word in heard) else None


def choice(heard: Sequence[str], choices: Mapping[str, Sequence[str]]) -> str | None:
    """The choice whose name or other word was heard best; None when none was, or two equally well."""
    fits = {
        name: max(_best(_phrase(phrase), heard) for phrase in (name, *others)) for name, others in choices.items()
    }
    best = max(fits.values(), default=0.0)
    named = [name for name, fit in fits.items() if fit == best]
    return named[0] if best and len(named) == 1 else None


def name(text: str) -> str | None:
    """A person's name: what follows "my name is", or an answer of at most three words."""
    found = _NAME.search(text)
    said = re.findall(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", found.group(1) if found else text)
    if not said or len(said) > 3:
        return None
    return " ".join(word[:1].upper() + word[1:] for word in said)
