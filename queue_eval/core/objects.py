"""Names of the objects that a run keeps in its store."""

from queue_eval.core.ending import Ending

MANIFEST = "manifest.json"
REPORT = "report.json"
ABORTED = "aborted.json"  # the run is over for good, whatever Redis knows of it
RESULTS = "results/"
EXECUTIONS = "executions/"
REVOKED = "void/"
CASES = "cases/"
PAYLOADS = "payloads/"
DURATIONS = "durations.json"
LIMITER = "limiter.json"


def result(case_id: str, number: int = 1) -> str:
    """Name the accepted outcome of a case: its first, or the next one after a retry of its metrics without a score."""
    return f"{RESULTS}{case_id}.json" if number == 1 else f"{RESULTS}{case_id}.{number}.json"


def case_of_result(name: str) -> str:
    return name[len(RESULTS) :].split(".", 1)[0]


def execution(case_id: str, execution: str, ending: Ending) -> str:
    """The ending stands in the name, so that a listing shows which cases are dead.

    Each case has a folder of its own: what a redelivery lists does not grow with the run.
    """
    return f"{executions_of(case_id)}{execution}.{ending}.json"


def executions_of(case_id: str) -> str:
    return f"{EXECUTIONS}{case_id}/"


def case_of_execution(name: str) -> str:
    """Empty for overhead, which belongs to no case: its name begins with who had it, `_producer` or `_probe`."""
    whose = name[len(EXECUTIONS) :].split("/", 1)[0]
    return "" if whose.startswith("_") else whose


def dead_letter(name: str) -> tuple[str, str] | None:
    """The case that is dead by an execution's name, and the execution."""
    case_id, _, rest = name[len(EXECUTIONS) :].partition("/")
    match rest.split("."):
        case [execution, Ending.DEAD, "json"]:
            return case_id, execution
        case _:  # of another ending, or not ours
            return None


def revocation(case_id: str, execution: str) -> str:
    """Stands beside a dead letter or a result that keeps its cost and no longer decides what became of its case."""
    return f"{REVOKED}{case_id}.{execution}.json"


def chunk(cases_sha256: str, index: int) -> str:
    """Under the digest of the cases: an enqueue that was cut short, or another at once, leaves nothing in between."""
    return f"{CASES}{cases_sha256[:16]}/{index:05d}.jsonl.gz"


def payload(case_id: str) -> str:
    return f"{PAYLOADS}{case_id}.json"
