"""What a caller's words mean: every line is something that a recogniser wrote, or may write."""

from __future__ import annotations

import pytest

from media_bridge.providers.offline import hearing
from media_bridge.providers.offline.hearing import words


@pytest.mark.parametrize(
    "said",
    [
        "74291",
        "7-4-2-9-1",
        "742 91",
        "74,291",
        "Seven, four, two, nine, one.",
        "Seven for two, nine, one.",
        "seven four to nine won",
        "It's for seven four two ninety one.",
        "My order number is seven forty-two nine one, thanks.",
        "I'm looking for seven four two nine one please",
        "seven four, uh, two nine one",
        "seven four two nine zero, sorry, seven four two nine one",
        "Sevan four two nine one",
    ],
)
def test_five_digits(said: str) -> None:
    assert hearing.digits(words(said), 5, 5) == ("74291", "")


@pytest.mark.parametrize(
    ("said", "bounds", "expected"),
    [
        ("double seven four two nine", (5, 5), "77429"),
        ("triple one two", (4, 4), "1112"),
        ("seven oh two nine one", (5, 5), "70291"),
        ("nineteen eighty four", (4, 4), "1984"),
        ("two hundred", (1, 0), "200"),
        ("I have two orders", (5, 5), None),
        ("for to too", (1, 0), None),
        ("seven four two", (5, 5), None),
        ("seven four two", (3, 5), "742"),
        ("I want one of two for my son", (1, 0), "2"),
        ("Where is my order?", (1, 0), None),
        ("", (1, 0), None),
    ],
)
def test_digits(said: str, bounds: tuple[int, int], expected: str | None) -> None:
    assert hearing.digits(words(said), *bounds)[0] == expected


def test_too_few_digits_are_told_so_that_the_rest_can_follow() -> None:
    assert hearing.digits(words("seven four two"), 5, 5) == (None, "742")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Could it be Friday?", "Friday"),
        ("next Tuesday", "next Tuesday"),
        ("on Saturdays", "Saturday"),
        ("Fryday", "Friday"),
        ("the day after tomorrow", "the day after tomorrow"),
        ("Tomorow.", "tomorrow"),
        ("today please", "today"),
        ("May the third", "May 3"),
        ("the twenty first of June", "June 21"),
        ("June 21st", "June 21"),
        ("march twenty two", "March 22"),
        ("December thirtieth", "December 30"),
        ("you may come", None),
        ("some day", None),
    ],
)
def test_days(said: str, expected: str | None) -> None:
    assert hearing.date(words(said)) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Yes, please.", True),
        ("Yeah no problem", True),
        ("That's correct.", True),
        ("Of course", True),
        ("No, thanks.", False),
        ("That's not right", False),
        ("I don't think so", False),
        ("Know.", False),
        ("the weather", None),
        ("", None),
    ],
)
def test_yes_and_no(said: str, expected: bool | None) -> None:
    assert hearing.yes_no(words(said)) is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("My name is ada lovelace.", "Ada Lovelace"),
        ("This is O'Brien", "O'Brien"),
        ("Ada", "Ada"),
        ("I would like to know where my order is", None),
        ("42", None),
    ],
)
def test_names(said: str, expected: str | None) -> None:
    assert hearing.name(said) == expected


def test_choices() -> None:
    sizes = {"small": ["little"], "large": ["big", "extra large"]}
    assert hearing.choice(words("the big one"), sizes) == "large"
    assert hearing.choice(words("a litle one"), sizes) == "small"
    assert hearing.choice(words("small or large"), sizes) is None
    assert hearing.choice(words("hm"), sizes) is None


@pytest.mark.parametrize(
    ("wanted", "heard", "expected"),
    [
        ("deliver", "delivery", 1.0),
        ("hours", "ours", hearing.NEAR),
        ("plan", "plane", 1.0),
        ("all", "law", 0.0),
        ("no", "now", 0.0),
        ("order", "older", hearing.NEAR),
        ("four", "4", 0.0),
    ],
)
def test_slips_of_the_recogniser(wanted: str, heard: str, expected: float) -> None:
    assert hearing.closeness(wanted, heard) == expected


def test_phrases_fit_as_their_worst_word_does() -> None:
    weights = {"opening hours": 4.0, "open": 2.0, "not": -3.0}
    assert hearing.score(weights, words("What are your opening ours?")) == 4 * hearing.NEAR + 2
    assert hearing.score(weights, words("not open")) == -1
    assert hearing.score(weights, words("hours of opening")) == 2
