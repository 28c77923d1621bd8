"""How a command says that it cannot go on."""


class CommandError(Exception):
    """The text goes to standard error as it is, and the command ends with 1."""
