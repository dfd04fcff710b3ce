"""Where a secret could be printed by accident: `repr` of what holds it, messages about it, log lines."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from media_bridge.providers.base import ProviderConfig
from stayline.errors import ConfigError
from stayline.logs import guard
from stayline.settings import Settings, TwilioCredentials, load_settings

PASSWORD = "correct-horse-battery"
DATABASE = f"postgresql://stayline:{PASSWORD}@db.example.com:5432/stayline"
SECRETS = ("hash_key", "live_key", "codec_token", "encryption_keys", "database_url")


def test_nothing_that_holds_a_secret_prints_it() -> None:
    settings = Settings(
        **dict.fromkeys(SECRETS[:3], PASSWORD), encryption_keys=f"k:{PASSWORD}", database_url=DATABASE
    )
    twilio = TwilioCredentials(auth_token=PASSWORD)
    config = ProviderConfig("openai", "m", api_key=PASSWORD)
    for holder in (settings, twilio, config):
        for printed in (repr(holder), str(holder), f"{holder}", f"{[holder]}"):
            assert PASSWORD not in printed, type(holder)


@pytest.mark.parametrize("name", SECRETS)
def test_a_wrong_value_is_not_repeated(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stayline.toml").write_text(f'{name} = ["{PASSWORD}"]\n')
    with pytest.raises(ConfigError) as wrong:
        load_settings()
    assert name in str(wrong.value)
    assert PASSWORD not in str(wrong.value)


def test_the_databases_password_stays_out_of_the_log() -> None:
    clean = guard(Settings(database_url=DATABASE), {})
    line = clean(logging.getLogger(), "info", {"event": f"cannot connect to {DATABASE}", "url": DATABASE})
    assert PASSWORD not in str(line)
    assert "db.example.com" in str(line)
