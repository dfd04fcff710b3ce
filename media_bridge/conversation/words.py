"""What a caller's words are: a turn, or the noises of somebody who listens."""

from __future__ import annotations

from stayline.models import TurnTaking


def is_listening_noise(text: str, rules: TurnTaking) -> bool:
    """Whether this, said alone while the agent speaks, is a backchannel ("mhm") and no turn."""
    return _plain(text) in rules.backchannels


def same_words(one: str, other: str) -> bool:
    """Whether two texts differ in nothing but capitals and punctuation."""
    return _plain(one) == _plain(other)


def _plain(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c in " -'").split())
