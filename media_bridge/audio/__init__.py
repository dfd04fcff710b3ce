"""Sound on the phone line: the codec, sample rates, voice activity, playout accounting and recordings."""
