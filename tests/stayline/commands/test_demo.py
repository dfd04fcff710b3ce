"""`stayline demo --crash` as a person runs it: a command in a terminal, with real speech and a bridge that is killed."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stayline.timeline import CallRecord
from tests.media_bridge.providers.speech import OFFLINE

pytestmark = [pytest.mark.timeout(300), OFFLINE]
