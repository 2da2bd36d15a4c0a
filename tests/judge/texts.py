"""The ticket that the tests of replies and tickets share."""

TICKET = "bcdfghjk"
