"""DeepEval's own object of a case."""

from typing import Any

from deepeval.dataset.utils import reconstruct_retrieval_context
from deepeval.test_case import ConversationalTestCase, LLMTestCase, RetrievedContextData, ToolCall

from queue_eval.core.case import Case
from queue_eval.core.media import media_in
from queue_eval.judge.in_words import in_words

_MADE = {"tools_called": ToolCall, "expected_tools": ToolCall, "retrieval_context": RetrievedContextData}


def test_case(case: Case) -> Any:
    """The object, or in words why DeepEval does not take the case."""
    if place := media_in(case.fields):
        # whether the reader of case files or another program wrote it: DeepEval must not see it
        return f"the case names a file or an address in {place!a}, which a judge model would open; only text is scored"
    try:
        if case.kind == "conversational":
            return ConversationalTestCase(**case.fields)
        return LLMTestCase(**{name: _made(name, value) for name, value in case.fields.items()})
    except (TypeError, ValueError) as error:
        return f"DeepEval does not take the case: {in_words(error)[:300]}"


def _made(name: str, value: Any) -> Any:
    """DeepEval makes these objects in conversations, and wants them ready-made in single turns."""
    kind = _MADE.get(name)
    if kind is None or not isinstance(value, list):
        return value
    made = [kind(**item) if isinstance(item, dict) else item for item in value]
    # DeepEval's files hold a context with its source as marked text
    return reconstruct_retrieval_context(made) if kind is RetrievedContextData else made


def for_metric(case: Any, metric: Any) -> Any:
    """The case as the metric can read it: most of DeepEval's own join contexts as texts, and fail on those that name
    their source.
    """
    contexts = getattr(case, "retrieval_context", None)
    is_own = type(metric).__module__.startswith("deepeval.")
    if not contexts or not is_own or hasattr(metric, "_group_retrieval_contexts"):
        return case
    texts = [one.context if isinstance(one, RetrievedContextData) else one for one in contexts]
    return case if texts == contexts else case.model_copy(update={"retrieval_context": texts})
