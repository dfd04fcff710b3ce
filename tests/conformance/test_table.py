"""The page in the docs is of today's checks."""

from __future__ import annotations

from typing import Any

import pytest

from stayline.catalog import ROLES, Role
from stayline.registry import provider_names
from tests.conformance.suite import Suite
from tests.conformance.table import PAGE, SUITES, page


def test_the_page_is_of_todays_checks() -> None:
    assert PAGE.read_text() == page(), "run `make conformance`"


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.role)
def test_exemptions_are_of_checks_that_exist(suite: Suite[Any]) -> None:
    for subject in suite.subjects:
        assert set(subject.exempt) <= set(suite.checks), subject.name
        assert len(subject.exempt) < len(suite.checks)


@pytest.mark.parametrize("role", ROLES)
def test_every_provider_of_every_role_is_put_to_its_suite(role: Role) -> None:
    (suite,) = (suite for suite in SUITES if suite.role == role)
    put = {subject.provider for subject in suite.subjects}
    assert put == set(provider_names(role))
