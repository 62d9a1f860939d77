"""An exception's message without its input: pydantic's exceptions repeat theirs, which may be a prompt."""

from pydantic import ValidationError


def in_words(error: BaseException) -> str:
    """Return one line; of a ValidationError the first of its errors, and where."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place + ': ' if place else ''}{first['msg']}".replace("\n", " ")
