"""The checks of `tests/conformance` that need no fake, before the vendors themselves: `make live`."""
