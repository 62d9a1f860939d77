"""An exception's message without its input: pydantic's exceptions repeat theirs, which may be a prompt."""

from pydantic import ValidationError

MOST_ERRORS = 1_000  # that are looked at: each is an object


def in_words(error: BaseException) -> str:
    """Return one line; of a ValidationError the first of its errors, and where."""
    if not isinstance(error, ValidationError):
        return str(error)
    if error.error_count() > MOST_ERRORS:
        return f"{error.error_count():,} values do not fit"
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place + ': ' if place else ''}{first['msg']}".replace("\n", " ")
