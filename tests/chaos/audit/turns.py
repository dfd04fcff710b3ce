"""No committed turn missing, none twice, none that nobody spoke: histories, record and callers' ears compared."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from tests.chaos.audit.evidence import TAG, Evidence, Finding, Line, Record

LAST_MOMENT: Final = 2.0
"""Seconds: a turn that ended so shortly before its bridge was killed may be missing. The promise is milliseconds;
the rest is what a caller needs to notice that the answer has ended."""

AT_A_PAUSE: Final = 3
"""Letters, each of 20 ms: where playback stood when it was stopped is known to some hundredths of a second."""


def check(seen: Evidence) -> Iterator[Finding]:
    sent = _sent(seen)
    for call in seen.calls():
        record = seen.record(call)
        if record is None:
            continue
        yield from _on_the_way(call, record, sent.get(record.call_id, {}))
        yield from _callers_turns(seen, call, record)
        yield from _agents_turns(seen, call, record)


def _sent(seen: Evidence) -> dict[str, dict[tuple[int, int], Line]]:
    """By call: the events that bridges sent, by session and number, as Temporal's histories have them."""
    found: dict[str, dict[tuple[int, int], Line]] = {}
    for workflow in seen.workflows:
        if workflow.type != "CallWorkflow":
            continue
        numbered = found.setdefault(workflow.call_id, {})
        for record in workflow.signals("record"):
            for place, event in enumerate(record.get("events", ())):
                numbered.setdefault((record["session"], record["first_seq"] + place), event)
    return found


def _on_the_way(call: str, record: Record, sent: dict[tuple[int, int], Line]) -> Iterator[Finding]:
    """What was sent is in the record once, and nothing else is; no number was left out."""
    for session in {number for number, _ in sent}:
        numbers = sorted(seq for number, seq in sent if number == session)
        gaps = sorted(set(range(1, numbers[-1] + 1)) - set(numbers))
        if gaps:
            yield Finding(call, "records missing", f"session {session} lacks {gaps}")
    kinds = ("user_turn", "agent_turn", "interruption", "dtmf")
    wanted = Counter(_essence(session, event) for (session, _), event in sent.items() if event["type"] in kinds)
    written = Counter(_essence(entry["session"], entry) for entry in record.of(*kinds))
    for essence in wanted - written:
        yield Finding(call, "turn missing", f"sent, but not in the record: {essence}")
    for essence in written - wanted:
        rule = "turn twice" if essence in wanted else "turn from nowhere"
        yield Finding(call, rule, f"in the record: {essence}")


def _essence(session: int, event: Line) -> str:
    body = {key: value for key, value in event.items() if key in ("type", "text", "digit", "at", "heard")}
    body["at"] = str(body.get("at", ""))[:19]  # who writes it down may write its fraction and its zone otherwise
    return json.dumps([session, body], sort_keys=True)


def _callers_turns(seen: Evidence, call: str, record: Record) -> Iterator[Finding]:
    """Each utterance of the caller is there at most once, and at least once if it was answered."""
    written = Counter(tag for turn in record.of("user_turn") for tag in TAG.findall(turn["text"]))
    own = {line["tag"] for line in seen.of_caller(call, "said")}
    for tag, count in written.items():
        if count > 1:
            yield Finding(call, "turn twice", f"the caller said {tag} once; the record has it {count} times")
        if tag not in own:
            yield Finding(call, "turn from nowhere", f"{tag} is of another caller")
    for line in seen.of_caller(call, "heard"):
        for tag in TAG.findall(line["text"]):
            if tag in own and tag not in written and not _last_moment(seen, line["at"]):
                yield Finding(call, "turn missing", f"{tag} was answered, but is not in the record")


def _agents_turns(seen: Evidence, call: str, record: Record) -> Iterator[Finding]:
    """What the record says that the caller heard, they heard; and the other way round."""
    lines = seen.of_caller(call, "heard")
    turns = record.of("agent_turn")
    for turn in turns:
        # How much of its last word was heard before a break is known to some hundredths of a second.
        said = turn["text"].rpartition(" ")[0] if turn.get("interrupted") else turn["text"]
        if not _was_heard(said, [line["text"] for line in lines]):
            yield Finding(call, "turn that nobody heard", f"{turn['source']}: {turn['text']!r}")
    written = Counter(tag for turn in turns for tag in set(TAG.findall(turn["text"])))
    times = sum((_answers_in(line["text"], turns) for line in lines), Counter[str]())
    unheard = {tag for turn in turns for tag in TAG.findall(turn.get("generated") or "")}
    for line in lines:
        not_told = _carrier_mute(seen, call, line["at"]) or _not_told_in_time(seen, line["at"])
        mute = unheard if not_told or _left_in_mid_word(seen, call, line["at"]) else ()
        for tag in TAG.findall(line["text"]):
            if line["whole"] and tag not in written and tag not in mute and not _last_moment(seen, line["at"]):
                yield Finding(
                    call, "turn missing", f"the caller heard {line['text']!r}; the record does not say so"
                )
    for tag, count in written.items():
        if count > times[tag]:
            yield Finding(call, "turn twice", f"{count} answers to {tag} in the record; {times[tag]} were heard")


def _was_heard(said: str, lines: list[str]) -> bool:
    """The words were heard, at one go or paused in between, be it within a word."""
    words = _plain(said)
    if words in _plain("".join(lines)):
        return True
    pieces = [piece for line in lines if (piece := _plain(line))]
    return any(
        _goes_on(words, [piece[start:], *pieces[place + 1 :]])
        for place, piece in enumerate(pieces)
        for start in range(len(piece))
    )


def _goes_on(words: str, pieces: list[str]) -> bool:
    """These are heard from here on; at each pause a letter or two may be missing, or be heard again."""
    piece, *others = pieces
    if piece.startswith(words):
        return True
    if not others or not words.startswith(piece):
        return False
    first, last = max(0, len(piece) - AT_A_PAUSE), min(len(piece) + AT_A_PAUSE, len(words) - 1)
    return any(_goes_on(words[at:], others) for at in range(first, last + 1))


def _answers_in(heard: str, turns: list[Line]) -> Counter[str]:
    """How often each tag was answered in what was heard without a pause: once, or by several turns in a row."""
    found = Counter(set(TAG.findall(heard)))
    texts = {_plain(turn["text"]): set(TAG.findall(turn["text"])) for turn in turns}
    within = Counter(tag for text, tags in texts.items() if text in _plain(heard) for tag in tags)
    return found | within


def _left_in_mid_word(seen: Evidence, call: str, at: float) -> bool:
    """Heard as the caller hung up: how much of the last word that was is known to some hundredths of a second."""
    return any(line["at"] <= at for line in seen.of_caller(call, "hangs_up"))


def _carrier_mute(seen: Evidence, call: str, at: float) -> bool:
    """The carrier played and told nobody: then the record has what was confirmed, and what else was generated."""
    kinds = {"fault", "stream_broken", "stream_closed", "stream_stopped"}
    told = [line for line in seen.of_carrier(call, *kinds) if line["at"] < at - (line["kind"] != "fault")]
    return bool(told) and "falls silent" in told[-1]["detail"]


def _not_told_in_time(seen: Evidence, at: float) -> bool:
    """What stops the carrier's playback was on its way when the caller heard this; or the model never said that
    this was all, so what was heard of it is a guess by the pace of human speech."""
    return any(
        (fault.kind, fault.what) in (("slow", "carrier-bridge"), ("hang", "realtime"))
        and fault.begun <= at <= fault.over + 1
        for fault in seen.faults
    )


def _last_moment(seen: Evidence, at: float) -> bool:
    return any(
        fault.kind == "kill" and fault.what.startswith("b") and abs(fault.begun - at) <= LAST_MOMENT
        for fault in seen.faults
    )


def _plain(text: str) -> str:
    """Letters and figures, each once in a row: speech that is paused within a letter goes on in that letter."""
    return re.sub(r"(.)\1+", r"\1", re.sub(r"[^a-z0-9]", "", text.lower()))
