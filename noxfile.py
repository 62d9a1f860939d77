"""The quick suite on each Python that is here: `make test-pythons`."""

import nox

nox.options.error_on_missing_interpreters = False
nox.options.default_venv_backend = "uv|venv"


@nox.session(python=["3.11", "3.12", "3.13", "3.14"])
def unit(session: nox.Session) -> None:
    session.install("--require-hashes", "-r", "requirements/dev.txt")
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    session.run("python", "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "tests/unit", "--thorough", "none")
