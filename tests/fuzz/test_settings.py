"""Settings from any environment: read, or a ConfigError with a text that quotes no secret."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from hypothesis import example, given
from hypothesis import strategies as st

from stayline.errors import ConfigError
from stayline.settings import PREFIX, Settings, TwilioCredentials, load_settings
from tests.fuzz.generators import ODD, fed, fuzzed

values = st.text(st.characters(exclude_characters="\x00", codec="utf-8")) | st.sampled_from(
    [str(odd) for odd in ODD if "\x00" not in str(odd) and str(odd).isprintable()]
    + ["127.0.0.1:8080", ":0", "[::1]:99999", "::", "https://", "http://[", '["a:b"]', "[1]", "{}", "1e9", "k:AAAA"]
)
environments = st.dictionaries(
    st.sampled_from([PREFIX + name.upper() for name in Settings.model_fields]), values, max_size=5
)


@fuzzed(2)
@given(
    environment=environments, beside=st.dictionaries(st.sampled_from(["TWILIO_AUTH_TOKEN", "STAYLINE_NO"]), values)
)
@example(environment={"STAYLINE_LISTEN_ADDR": "h:²"}, beside={})
@example(environment={"STAYLINE_LISTEN_ADDR": "h:" + "9" * 5000}, beside={})
@example(environment={"STAYLINE_PUBLIC_URL": "http://["}, beside={})
@example(environment={"STAYLINE_DATA_DIR": ""}, beside={})
def test_environment(environment: dict[str, str], beside: dict[str, str]) -> None:
    fed("settings", len(environment) + len(beside))
    secret = "s3cret-" + "x" * 20
    with mock.patch.dict(os.environ, {**environment, **beside, "STAYLINE_HASH_KEY": secret}, clear=True):
        try:
            settings = load_settings()
        except ConfigError as error:
            said = str(error)
        else:
            said = ""
        assert secret not in said
        if said:
            return
        assert isinstance(settings.listen[1], int)
        assert isinstance(settings.codec_listen[1], int)
        assert settings.public
        assert settings.database
        assert isinstance(settings.spool_dir, Path)
        assert secret not in repr(settings)
        TwilioCredentials()
