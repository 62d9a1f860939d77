"""An offline, deterministic judge. It reads the material in the prompt and compares words, numbers and negations.

It separates answers that their context supports from those that it does not, and knows nothing of meaning: good for a
first run without a key, for tests and for load, and labelled as what it is in every report.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.weight import estimated_tokens
from queue_eval.judge import lexical_prompts as prompts
from queue_eval.judge.lexical_text import Words, agreement, clauses, coverage, phrases, sentences
from queue_eval.judge.schema import SCHEMA_REQUEST
from queue_eval.ports.judge import Answer
from queue_eval.ports.judge_error import JudgeError

SUPPORTED = 0.6  # share of a claim's words that its context must have
UNSUPPORTED = 0.35
MAX_CLAIMS = 60


class LexicalJudge:
    async def ask(self, prompt: str, schema: type[BaseModel] | None) -> Answer:
        keys = frozenset(schema.model_fields) if schema else asked_keys(prompt)
        text = json.dumps(answer(prompt, keys), ensure_ascii=False)
        return Answer(text=text, input_tokens=estimated_tokens(prompt), output_tokens=estimated_tokens(text))

    async def close(self) -> None:
        """Nothing is held."""


def answer(prompt: str, keys: frozenset[str]) -> dict[str, Any]:
    """The answer to one of DeepEval's prompts, by the keys that it must have.

    JudgeError when the kind of prompt is unknown.
    """
    prompt = prompt.partition(SCHEMA_REQUEST)[0]
    for asked, reply in _REPLIES:
        if asked <= keys and (found := reply(prompt)) is not None:
            return found
    raise JudgeError(
        f"the lexical judge does not know this kind of prompt (keys {', '.join(sorted(keys)) or 'none'}); it serves"
        " answer relevancy, faithfulness, hallucination, the contextual metrics and GEval: use a real judge for"
        " others",
        ErrorClass.CASE_FATAL,
        admitted=True,
    )


def asked_keys(prompt: str) -> frozenset[str]:
    """The keys that a prompt asks for in words, when no schema came beside it."""
    _, _, schema = prompt.partition(SCHEMA_REQUEST)
    if schema:
        return frozenset(json.loads(schema).get("properties", {}))
    named = re.findall(r"(?:with the|the) [\"'`]+(\w+)[\"'`]+(?: and [\"'`]+(\w+)[\"'`]+)? key", prompt)
    if not named and '"score"' in prompt:
        return frozenset(("score", "reason"))
    return frozenset(key for pair in named[-1:] for key in pair if key)


def _truths(prompt: str) -> dict[str, Any] | None:
    found = prompts.TRUTHS.find(prompt)
    return {"truths": sentences(found[0])} if found else None


def _claims(prompt: str) -> dict[str, Any] | None:
    found = prompts.CLAIMS.find(prompt)
    return {"claims": phrases(found[0])[:MAX_CLAIMS]} if found else None


def _statements(prompt: str) -> dict[str, Any] | None:
    found = prompts.STATEMENTS.find(prompt)
    return {"statements": clauses(found[0])[:MAX_CLAIMS]} if found else None


def _verdicts(prompt: str) -> dict[str, Any] | None:
    for shape, judge in _VERDICTS:
        if found := shape.find(prompt):
            return {"verdicts": judge(*found)}
    return None


def _faithfulness(context: str, claims: str) -> list[dict[str, str]]:
    source, named = Words.of(context), [(phrase, Words.of(phrase)) for phrase in phrases(context)]
    return [_supported(claim, source, named) for claim in prompts.as_list(claims)]


def _supported(claim: str, source: Words, named: list[tuple[str, Words]]) -> dict[str, str]:
    words = Words.of(claim)
    strange = words.numbers - source.numbers
    if strange:
        return {"verdict": "no", "reason": f"'{claim}' gives {', '.join(sorted(strange))}, which the context does not."}
    if coverage(words, source) < SUPPORTED:
        missing = ", ".join(dict.fromkeys(w for w in words.content if w not in set(source.content)))
        return {"verdict": "no", "reason": f"'{claim}' is not in the context, which never mentions: {missing}."}
    alike = [(phrase, other) for phrase, other in named if coverage(words, other) >= SUPPORTED]
    if alike and all(other.negated != words.negated for _, other in alike):
        return {"verdict": "no", "reason": f"'{claim}' is the opposite of: {alike[0][0]}"}
    return {"verdict": "yes", "reason": ""}


def _relevancy(question: str, statements: str) -> list[dict[str, str]]:
    asked = Words.of(question)
    return [_relevant(statement, asked) for statement in prompts.as_list(statements)]


def _relevant(statement: str, asked: Words) -> dict[str, str]:
    words = Words.of(statement)
    if set(words.content) & set(asked.content):
        return {"verdict": "yes", "reason": ""}
    if len(words.content) <= 3:
        return {
            "verdict": "borderline",
            "reason": f"'{statement}' may be a short answer; it shares no word with the question.",
        }
    return {"verdict": "no", "reason": f"'{statement}' shares no word with the question."}


def _hallucination(contexts: str, output: str) -> list[dict[str, str]]:
    claims = phrases(output)
    verdicts = []
    for context in prompts.as_list(contexts):
        against = [v for v in _faithfulness(context, str(claims)) if v["verdict"] == "no"]
        agrees = len(against) * 2 <= len(claims)
        verdicts.append(
            {
                "verdict": "yes" if agrees else "no",
                "reason": against[0]["reason"] if against else "Its words are in the context.",
            }
        )
    return verdicts


def _precision(question: str, expected: str, contexts: str) -> list[dict[str, str]]:
    wanted = Words.of(f"{question} {expected}")
    return [_useful(wanted, context) for context in prompts.as_list(contexts)]


def _useful(wanted: Words, context: str) -> dict[str, str]:
    shared = coverage(wanted, Words.of(context))
    return {
        "verdict": "yes" if shared >= UNSUPPORTED else "no",
        "reason": f"It has {shared:.0%} of the words of question and expected answer.",
    }


def _recall(expected: str, contexts: str) -> list[dict[str, str]]:
    source = Words.of(contexts)
    return [
        {
            "verdict": "yes" if (share := coverage(Words.of(s), source)) >= SUPPORTED else "no",
            "reason": f"{share:.0%} of its words are in the context.",
        }
        for s in sentences(expected)
    ]


def _context_relevancy(question: str, context: str) -> list[dict[str, str]]:
    asked = set(Words.of(question).content)
    return [
        {
            "statement": s,
            "verdict": "yes" if asked & set(Words.of(s).content) else "no",
            "reason": "It shares no word with the question.",
        }
        for s in sentences(context)
    ]


def _steps(prompt: str) -> dict[str, Any] | None:
    found = prompts.CRITERIA.search(prompt)
    criteria = " ".join(found.group(1).split()) if found else "the criteria"
    return {
        "steps": [
            f"Read the parameters with this question in mind: {criteria}",
            (
                "Compare the words of the actual output with those of the expected output, or of the context where no"
                " output is expected."
            ),
            "Lower the score for numbers that differ and for negations that only one of them has.",
        ]
    }


def _score(prompt: str) -> dict[str, Any] | None:
    parts = prompts.test_case_parts(prompt)
    output = parts.get("Actual Output", "")
    against = next((parts[k] for k in ("Expected Output", "Retrieval Context", "Context", "Input") if parts.get(k)), "")
    if not output:
        return None
    if "Expected Output" in parts:
        share = agreement(output, against)
    else:
        verdicts = _faithfulness(against, str(phrases(output)))
        share = sum(v["verdict"] == "yes" for v in verdicts) / max(1, len(verdicts))
    strict = "STRICTLY EITHER 1" in prompt
    bounds = re.search(r"an integer between (\d+) and (\d+)", prompt)
    low, high = (0, 1) if strict else (int(bounds.group(1)), int(bounds.group(2))) if bounds else (0, 10)
    return {
        "score": round(low + share * (high - low)),
        "reason": f"By its words, the output agrees to {share:.0%} with: {against[:120]}",
    }


def _reason(prompt: str) -> dict[str, Any] | None:
    found = prompts.REASON.search(prompt)
    if not found:
        return None
    faults = [fault for listed in prompts.FAULTS.findall(prompt) for fault in prompts.as_list(listed)]
    return {
        "reason": (
            f"The score is {found.group(2)} because "
            + (faults[0] if faults else "every statement found its words where they were expected.")
        )
    }


def _ready(prompt: str) -> dict[str, Any] | None:
    return {"ready": True} if "ready" in prompt else None


_VERDICTS: tuple[tuple[prompts.Shape, Callable[..., list[dict[str, str]]]], ...] = (
    (prompts.FAITHFULNESS, _faithfulness),
    (prompts.RELEVANCY, _relevancy),
    (prompts.HALLUCINATION, _hallucination),
    (prompts.PRECISION, _precision),
    (prompts.RECALL, _recall),
    (prompts.CONTEXT_RELEVANCY, _context_relevancy),
)
_REPLIES: tuple[tuple[frozenset[str], Callable[[str], dict[str, Any] | None]], ...] = (
    (frozenset(("truths",)), _truths),
    (frozenset(("claims",)), _claims),
    (frozenset(("statements",)), _statements),
    (frozenset(("verdicts",)), _verdicts),
    (frozenset(("score", "reason")), _score),
    (frozenset(("steps",)), _steps),
    (frozenset(("reason",)), _reason),
    (frozenset(("ready",)), _ready),
)
