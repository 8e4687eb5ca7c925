"""The one exception for mistakes that the user can mend."""


class UserError(Exception):
    """Bad input. The message is one line for the person who made it: what is wrong, where, and what to do.

    The command line prints the message and exits with status 2; it shows no traceback.
    """


class UserNotice(UserWarning):
    """Something the user should know, though the work goes on: what was found, and what was done about it."""
