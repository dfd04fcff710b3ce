"""What the fuzz tests send: valid messages, mutated; and how much of it.

A script is made from a seed by `random.Random`, up to 160 messages for one draw of Hypothesis: that is some ten
times as many inputs a second as drawing each node. Its length is drawn apart, and a shorter script is the beginning
of a longer one, so Hypothesis shrinks a failure to the shortest script that has it. What failed before stands as
`@example` at its test.
"""

from __future__ import annotations

import copy
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Json = dict[str, Any]
Raw = str | bytes
Test = TypeVar("Test", bound=Callable[..., Any])

EXAMPLES: Final = int(os.environ.get("FUZZ_EXAMPLES", "25"))
LONGEST_SCRIPT: Final = 160
_DEEP: Final = "[" * 100_000

counts: Counter[str] = Counter()
"""Inputs by the name of what was fed, for the last line of a run."""


def fuzzed(share: float = 1.0) -> Callable[[Test], Test]:
    """So many examples as the run has for each test, times `share`: for tests that are slower than most."""
    limits = settings(
        max_examples=max(5, int(EXAMPLES * share)),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    return limits


def fed(name: str, number: int = 1) -> None:
    counts[name] += number


# --- values ----------------------------------------------------------------------------------------------

ODD: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 7, 2**31, -(2**63), 10**18, 10**400, 0.5, -0.0, 1e308, -1e308),
    *(float("inf"), float("-inf"), float("nan")),
    *("", " ", "0", "-1", "²", "٣", "1e999", "null", "true", "x" * 300, "\ud800", "\udfff x", "\x00", "🙂", "a\nb"),
    *("rate=0", "audio/pcm;rate=0", "audio/pcm;rate=1", "audio/pcm;rate=999999999", "AAAA", "A", "/////w==", "é"),
    *(
        [],
        {},
        [[]],
        [None],
        [{}],
        ["a", 5],
        {"a": None},
        {"type": None},
        {"text": 5},
        {"code": []},
        {"message": {}},
    ),
)

texts = st.text() | st.text(alphabet=st.characters(codec=None, categories=None), max_size=40)
"""Any text, half surrogate pairs included."""
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from(ODD),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
ascii_tokens = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=30)


# --- messages --------------------------------------------------------------------------------------------


def scripts(valid: Sequence[Json]) -> st.SearchStrategy[list[Raw]]:
    """Messages in about the order of a conversation, many of them mutated.

    Args:
        valid: one or more conversations, one after the other.
    """
    drawn = st.tuples(st.integers(1, LONGEST_SCRIPT), st.integers(0, 2**48))
    return drawn.map(lambda drawn: _script(valid, *drawn))


def mutants(valid: Sequence[Json]) -> st.SearchStrategy[Json]:
    """One of the objects, mutated a few times; a JSON object still."""
    return st.tuples(st.integers(0, 6), st.integers(0, 2**48)).map(lambda drawn: _mutant(valid, *drawn))


def _script(valid: Sequence[Json], length: int, seed: int) -> list[Raw]:
    chance = Random(seed)
    wild = chance.choice((0.1, 0.3, 0.7))
    place = 0 if chance.random() < 0.6 else chance.randrange(len(valid))
    script: list[Raw] = []
    for _ in range(length):
        if chance.random() < 0.2:  # reordered, left out, said again
            place = chance.randrange(len(valid))
        message = valid[place % len(valid)]
        place += 1
        if chance.random() >= wild:
            script.append(json.dumps(message))
        elif chance.random() < 0.15:
            script.append(_spoilt(json.dumps(message), chance))
        else:
            changed = json.loads(json.dumps(message))
            for _ in range(chance.choice((1, 1, 1, 2, 3))):
                _mutate(changed, valid, chance)
            script.append(json.dumps(changed))
    return script


def _mutant(valid: Sequence[Json], times: int, seed: int) -> Json:
    chance = Random(seed)
    changed: Json = json.loads(json.dumps(chance.choice(valid)))
    for _ in range(times):
        _mutate(changed, valid, chance)
    return changed


def _spoilt(text: str, chance: Random) -> Raw:
    """Text that is mostly no JSON any more."""
    match chance.randrange(8):
        case 0:
            return text[: chance.randrange(len(text) + 1)]
        case 1:
            return chance.choice(("", "null", "[]", '"x"', "5", "{}", "NaN", "[{}]", '{"type":NaN}', "1" * 5000))
        case 2:
            return _DEEP if chance.random() < 0.05 else "[" * 50
        case 3:
            return text.encode()[:-1] + b"\xff"
        case 4:
            return text.encode("utf-16")
        case 5:
            at = chance.randrange(len(text) + 1)
            return text[:at] + chr(chance.choice((0, 34, 92, 123, 0x2028, 0x1F642))) + text[at:]
        case 6:
            return text + text
        case _:
            return text.replace(":", ": ", 1).encode()


def _mutate(message: Json, valid: Sequence[Json], chance: Random) -> None:
    """Change one place of the message: drop, retype, rename, duplicate, swap, nest."""
    holder, key = _place(message, chance)
    if holder is None:
        return
    match chance.randrange(9):
        case 0:
            del holder[key]
        case 1 | 2 | 3:
            holder[key] = copy.deepcopy(chance.choice(ODD))
        case 4:
            if isinstance(holder, dict):
                holder[chance.choice((str(key).upper(), f"{key}_", "error", "type", "items"))] = holder.pop(key)
            else:
                holder.insert(chance.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        case 5:
            _, other = _place(message, chance)
            if isinstance(holder, dict) and isinstance(other, str):
                holder[other] = copy.deepcopy(holder[key])
        case 6:
            second, other = _place(message, chance)
            if second is not None and not _within(second, holder[key]) and not _within(holder, second[other]):
                holder[key], second[other] = second[other], holder[key]
        case 7:
            holder[key] = chance.choice(([holder[key]], {"x": holder[key]}, str(holder[key])))
        case _:  # what another message has in its place
            there, elsewhere = _place(json.loads(json.dumps(chance.choice(valid))), chance)
            if there is not None:
                holder[key] = there[elsewhere]


def _place(message: Json, chance: Random) -> tuple[Any, Any]:
    """Some place in it: what holds it, and the key or index there."""
    holder: Any = message
    while True:
        if not holder:
            return None, None
        key = chance.choice(list(holder)) if isinstance(holder, dict) else chance.randrange(len(holder))
        if not isinstance(holder[key], (dict, list)) or not holder[key] or chance.random() < 0.25:
            return holder, key
        holder = holder[key]


def _within(node: Any, of: Any) -> bool:
    if node is of:
        return True
    if isinstance(of, (dict, list)):
        return any(_within(node, part) for part in (of.values() if isinstance(of, dict) else of))
    return False
