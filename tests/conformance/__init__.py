"""What every provider of a role must do, whoever it is: one suite per role, and a table of what was checked.

A check is a coroutine with a line of docstring. It gets a bench: the adapter of one provider before its fake (or
its engine). `docs/conformance.md` is made of checks and subjects (`make conformance`), and a test keeps it so.
"""
