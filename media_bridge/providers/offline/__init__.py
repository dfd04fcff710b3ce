"""Engines that run here, without a key, an account or a network: Moonshine, hibari, and the scripted model.

The speech engines need the extra `stayline[offline]`; their weights are inside its wheels. What they cannot do is
said in the README.
"""
