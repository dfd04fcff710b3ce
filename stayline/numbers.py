"""What can be dialled."""

from __future__ import annotations

import re
from typing import Final

_E164: Final = re.compile(r"\+[1-9]\d{6,14}")
_SIP: Final = re.compile(r"sips?:[^\s@<>\"]+@[^\s@<>\"]+")


def is_dialable(to: str) -> bool:
    """Whether this is a number in E.164 form, like +15551234567, or a `sip:` or `sips:` address."""
    return bool(_E164.fullmatch(to) or _SIP.fullmatch(to))
