"""The errors that a user can cause; the command line prints them in one line and leaves with code 2."""


class ScoreMDError(ValueError):
    """Something the user gave is wrong; the message says what, and what is allowed."""
