"""The one exception for input that cannot be used."""


class InputError(ValueError):
    """What a user gave cannot be used: a configuration, a file, a directory, a shape.

    The message is one paragraph that names the argument, what came, what was expected and what to do.
    Recipes print it alone, without a traceback, and exit with status 2.
    """
