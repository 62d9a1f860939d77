"""What gateways and servers answer in trouble, as their documentation or their code words it, and what the run does then.

docs/reference/judges.md shows this table to users; a test holds the two together.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import BaseModel

from queue_eval.core.attempt import ErrorClass
from queue_eval.core.errors import ConfigError
from queue_eval.judge.headers import limits_named, retry_after_s
from queue_eval.judge.openai import OpenAIClient
from queue_eval.judge.proxy import proxy_for
from queue_eval.judge.read_answer import read_answer
from queue_eval.judge.refusal import refusal
from queue_eval.judge.secrets import Secrets
from queue_eval.ports.judge_error import JudgeError
from testkit.measured import ROOT
from testkit.openai_client import client_of

WAITS, HOLDS, TRIES_AGAIN, THE_CASE, ASKS, ANOTHER = (
    "waits", "holds the run", "tries again", "the case's fault", "asks a neutral question", "asks for another answer",
)  # fmt: skip


WAITS_WHILE = "waits while others are served, else tries again"
HOLDS_WHILE = "waits while others are served, else holds the run"


def what_the_run_does(error: JudgeError) -> str:
    if error.rate_limited:
        return WAITS
    if error.is_proxys_own:
        return WAITS_WHILE
    if error.is_quota:
        return HOLDS_WHILE
    if error.is_invalid_answer:
        return ANOTHER
    if error.is_unexplained:
        return ASKS
    return {ErrorClass.RUN_FATAL: HOLDS, ErrorClass.CASE_FATAL: THE_CASE, ErrorClass.RETRY: TRIES_AGAIN}[error.kind]


GOOGLE_PER_MINUTE = (
    "You exceeded your current quota, please check your plan and billing details. Please retry in 37.5s."
)

# server, status, body, what the run does, seconds that it waits where the answer names them
ANSWERS: list[tuple[str, int, Any, str, float | None]] = [
    ("OpenAI", 429, {"error": {"message": "Rate limit reached for requests. Please try again in 20ms.", "type": "requests", "code": "rate_limit_exceeded"}}, WAITS, 0.02),
    ("OpenAI", 429, {"error": {"message": GOOGLE_PER_MINUTE.partition(" Please")[0], "type": "insufficient_quota", "code": "insufficient_quota"}}, HOLDS_WHILE, None),
    ("OpenAI", 429, {"error": {"message": GOOGLE_PER_MINUTE, "type": "insufficient_quota", "code": "insufficient_quota"}}, WAITS, 37.5),
    ("OpenAI", 503, {"error": {"message": "Rate limit reached.", "type": "requests", "code": "rate_limit_exceeded"}}, WAITS, None),
    ("OpenAI", 401, {"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}, HOLDS, None),
    ("OpenAI", 404, {"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, HOLDS, None),
    ("OpenAI", 400, {"error": {"message": "This model's maximum context length is 8192 tokens.", "code": "context_length_exceeded"}}, THE_CASE, None),
    ("OpenAI", 500, {"error": {"message": "The server had an error", "type": "server_error"}}, TRIES_AGAIN, None),
    ("Azure", 429, {"error": {"code": "429", "message": "Requests to the ChatCompletions_Create Operation have exceeded call rate limit. Please retry after 6 seconds."}}, WAITS, 6.0),
    ("Azure", 400, {"error": {"code": "content_filter", "message": "The response was filtered", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}, THE_CASE, None),
    ("Azure", 404, {"error": {"code": "DeploymentNotFound", "message": "The API deployment for this resource does not exist."}}, HOLDS, None),
    ("Azure", 403, {"error": {"code": "QuotaExceeded", "message": "Out of call volume quota."}}, HOLDS_WHILE, None),
    ("Google", 429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": GOOGLE_PER_MINUTE}}], WAITS, 37.5),
    ("Google", 429, {"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "Quota exceeded", "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12s"}]}}, WAITS, 12.0),
    ("Google", 403, {"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "Quota exceeded for quota metric 'Requests'", "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "RATE_LIMIT_EXCEEDED"}]}}, WAITS, None),
    ("Google", 503, {"error": {"code": 503, "status": "UNAVAILABLE", "message": "The model is overloaded."}}, TRIES_AGAIN, None),
    ("Anthropic", 429, {"type": "error", "error": {"type": "rate_limit_error", "message": "Number of request tokens has exceeded your per-minute rate limit"}}, WAITS, None),
    ("Anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "Your credit balance is too low to access the Anthropic API."}}, HOLDS, None),
    ("Anthropic", 529, {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}, TRIES_AGAIN, None),
    ("Anthropic", 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "prompt is too long: 210000 tokens > 200000 maximum"}}, THE_CASE, None),
    ("LiteLLM", 400, {"error": {"message": "Budget has been exceeded! Current cost: 1.2, Max budget: 1.0", "type": "budget_exceeded", "param": None, "code": "400"}}, HOLDS, None),
    ("LiteLLM", 422, {"error": {"message": "ExceededBudget: User over budget", "type": "budget_exceeded", "code": "422"}}, HOLDS, None),
    ("LiteLLM", 429, {"error": {"message": "Budget has been exceeded!", "type": "budget_exceeded", "code": "429"}}, HOLDS_WHILE, None),
    ("LiteLLM", 429, {"error": {"message": "Max parallel request limit reached", "type": "None", "code": "429"}}, WAITS, None),
    ("LiteLLM", 429, {"error": {"message": "litellm.RateLimitError: RateLimitError: OpenAIException - Rate limit reached", "type": "throttling_error", "param": None, "code": "429"}}, WAITS, None),
    ("LiteLLM", 429, {"error": {"message": "No deployments available for selected model, Try again in 7 seconds. Passed model=m", "type": "all_deployments_in_cooldown", "param": None, "code": "429"}}, WAITS, 7.0),
    ("LiteLLM", 429, {"error": {"message": "No deployments available - crossed budget: Exceeded budget for provider openai: 6.0 >= 0.5", "type": "internal_server_error", "param": None, "code": "429"}}, HOLDS_WHILE, None),
    ("LiteLLM", 400, {"error": {"message": "/chat/completions: Invalid model name passed in model=nope. Call `/v1/models` to view available models", "type": "invalid_request_error", "param": None, "code": "400"}}, HOLDS, None),
    ("LiteLLM", 400, {"error": {"message": "litellm.ContextWindowExceededError: litellm.BadRequestError: too long", "type": "invalid_request_error", "param": None, "code": "400"}}, THE_CASE, None),
    ("LiteLLM", 401, {"error": {"message": "Authentication Error, No api key passed in.", "type": "auth_error", "param": "None", "code": "401"}}, HOLDS, None),
    ("LiteLLM", 400, {"error": {"message": "No connected db.", "type": "no_db_connection", "param": None, "code": "400"}}, ASKS, None),
    ("LiteLLM", 408, {"error": {"message": "litellm.Timeout: APITimeoutError - Request timed out.", "type": "invalid_request_error", "param": None, "code": "408"}}, TRIES_AGAIN, None),
    ("LiteLLM", 500, {"error": {"message": "litellm.InternalServerError: InternalServerError: OpenAIException - Connection error.", "type": "internal_server_error", "param": None, "code": "500"}}, TRIES_AGAIN, None),
    ("OpenRouter", 402, {"error": {"code": 402, "message": "Insufficient credits"}}, HOLDS, None),
    ("OpenRouter", 429, {"error": {"code": 429, "message": "Rate limit exceeded: free-models-per-min."}}, WAITS, None),
    ("OpenRouter", 502, {"error": {"code": 502, "message": "Provider returned error"}}, TRIES_AGAIN, None),
    ("vLLM", 404, {"object": "error", "message": "The model `x` does not exist.", "type": "NotFoundError", "param": None, "code": 404}, HOLDS, None),
    ("vLLM", 400, {"object": "error", "message": "This model's maximum context length is 4096 tokens.", "type": "BadRequestError", "code": 400}, THE_CASE, None),
    ("Ollama", 404, {"error": "model 'x' not found, try pulling it first"}, HOLDS, None),
    ("Ollama", 503, {"error": "server busy, please try again. maximum pending requests exceeded"}, WAITS, None),
    ("OpenAI", 503, {"error": {"message": "Slow down: your requests grow too fast", "type": "server_error", "code": "slow_down"}}, WAITS, None),
    ("llama.cpp", 503, {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}, TRIES_AGAIN, None),
    ("llama.cpp", 400, {"error": {"code": 400, "message": "the request exceeds the available context size", "type": "exceed_context_size_error"}}, THE_CASE, None),
    ("Bedrock gateway", 400, {"__type": "ThrottlingException", "message": "Too many requests, please wait before trying again."}, WAITS, None),
    ("Groq", 400, {"error": {"message": "Failed to generate JSON. Please adjust your prompt.", "code": "json_validate_failed"}}, ANOTHER, None),
    ("nginx", 503, "<html><head><title>503 Service Temporarily Unavailable</title></head></html>", WAITS_WHILE, None),
    ("nginx", 429, "<html><head><title>429 Too Many Requests</title></head></html>", WAITS, None),
    ("nginx", 504, "<html>\r\n<head><title>504 Gateway Time-out</title></head>\r\n</html>", TRIES_AGAIN, None),
    ("nginx", 413, "<html><head><title>413 Request Entity Too Large</title></head></html>", THE_CASE, None),
    ("any", 418, {"detail": "something nobody has heard of"}, ASKS, None),
    ("any", 422, {"detail": [{"type": "missing", "loc": ["body", "x"], "msg": "Field required"}]}, ASKS, None),
    ("any", 302, "", HOLDS, None),
]  # fmt: skip


@pytest.mark.parametrize(("server", "status", "body", "does", "wait_s"), ANSWERS)
def test_what_the_run_does_when_a_gateway_refuses(
    server: str, status: int, body: Any, does: str, wait_s: float | None
) -> None:
    text = body if isinstance(body, str) else json.dumps(body)
    error = refusal(status, text, {}, Secrets(), now=0.0)
    assert (what_the_run_does(error), error.retry_after_s if error.rate_limited else None) == (does, wait_s)


def test_what_is_logged_of_a_refusal_are_not_the_judges_words() -> None:
    """They may be the prompt's. The reason in the store has them."""
    error = refusal(401, '{"error": {"message": "bad key for: MY SECRET PROMPT"}}', {}, Secrets(), now=0.0)
    assert "MY SECRET PROMPT" in str(error)
    assert error.public == "the judge refuses our key (HTTP 401: …); check judge.api_key_env and the account's rights"


def test_the_docs_show_every_row() -> None:
    page = (ROOT / "docs" / "reference" / "judges.md").read_text()
    shown = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| ")
    ]
    notices = [(row[0], row[1], row[-1].partition(" (")[0]) for row in shown if len(row) == 4]
    assert [(server, str(status), does) for server, status, _, does, _ in ANSWERS] == notices[1:]


def test_when_a_providers_word_comes_through_a_gateway_it_counts_unless_the_gateway_has_its_own() -> None:
    assert retry_after_s({"llm_provider-retry-after": "7"}, now=0.0) == 7.0
    assert retry_after_s({"llm_provider-retry-after-ms": "7000"}, now=0.0) == 7.0
    assert retry_after_s({"llm_provider-retry-after": "7", "retry-after": "60"}, now=0.0) == 60.0
    reset = {"llm_provider-x-ratelimit-remaining-requests": "0", "llm_provider-x-ratelimit-reset-requests": "20s"}
    assert retry_after_s(reset, now=0.0) == 20.0


@pytest.mark.parametrize("status", [408, 504, 524])
def test_a_gateway_that_gives_a_call_up_reports_that_the_judge_is_slow(status: int) -> None:
    assert refusal(status, "<html>Gateway Time-out</html>", {}, Secrets(), now=0.0).is_timeout


@pytest.mark.parametrize(
    "words",
    ["quota", "crossed budget", "exceeded your current quota", "model not found", "content_filter", "rate limit"],
)
def test_words_of_the_prompt_that_a_rate_limit_repeats_change_nothing(words: str) -> None:
    """A case must not be able to hold the run, nor to be taken for its own fault, by its words."""
    body = json.dumps({"error": {"message": f"slow down. Your prompt was: {words}", "code": "rate_limit_exceeded"}})
    assert what_the_run_does(refusal(429, body, {}, Secrets(), now=0.0)) == WAITS


@pytest.mark.parametrize(
    ("headers", "limits"),
    [
        ({"x-ratelimit-api_key-limit-requests": "60", "x-ratelimit-limit-requests": "5000"}, {"requests": 60.0}),
        ({"x-litellm-key-rpm-limit": "100", "x-litellm-key-tpm-limit": "20000"}, {"requests": 100.0, "tokens": 20000.0}),
        ({"x-ratelimit-limit-requests": "60", "x-litellm-key-rpm-limit": "None"}, {"requests": 60.0}),
    ],
)  # fmt: skip
def test_of_several_limits_the_strictest_binds(headers: dict[str, str], limits: dict[str, float]) -> None:
    assert limits_named(headers) == limits


class Reply(BaseModel):
    score: int
    reason: str = ""


@pytest.mark.parametrize(
    "text",
    [
        '{"score": 7, "reason": "good"}',
        '{"score": 7, "reason": "good",}',
        '```json\n{"score": 7, "reason": "good"}\n```',
        'Here: {"score": 7, "reason": "good"} That is all.',
        '{"score": 7, "reason": "good"}\n\n{"note": "a second block"}',
        '<think>\nThe format is {"score": ...}. {"score": 1, "reason": "a draft"}\n</think>\n{"score": 7, "reason": "good"}',
        'a template opened the thoughts {"score": 2, "reason": "no"}</think>{"score": 7, "reason": "good"}',
        'The format is {"score": 0-10}. So: {"score": 7, "reason": "good"}',
        '{"score": 7, "reason": "good"',
        '\ufeff{"score": 7, "reason": "good"}',
        '{"score": 7, "reason": "good", "more": {"score": 1, "reason": "an inner one"},}',
        '{"score": 7, "reason": "good"}\n<think>My draft was {"score": 1, "reason": "a draft"}.</think>',
        '{"score": 7, "reason": "good"}\n<think>Or {"score": 1, "reason": "a draft"}, but the answer was cut',
        "In sets {a}, {b} and { c }" * 70 + ' {"score": 7, "reason": "good"}',
        'It is {"set"}: ' * 70 + '{"score": 7, "reason": "good"}',
    ],
)  # fmt: skip
def test_an_answer_is_read_as_tolerantly_as_deepeval_reads_it(text: str) -> None:
    assert read_answer(text, Reply) == Reply(score=7, reason="good")


def test_a_comma_within_a_string_stays() -> None:
    text = '{"score": 7, "reason": "as in [1, 2, ] or {3, }",}'
    assert read_answer(text, Reply) == Reply(score=7, reason="as in [1, 2, ] or {3, }")


def test_a_word_of_a_fixed_choice_counts_in_any_case() -> None:
    from deepeval.metrics.faithfulness.schema import Verdicts

    read = read_answer('{"verdicts": [{"verdict": "Yes"}, {"verdict": " NO. "}]}', Verdicts)
    assert [str(one.verdict) for one in read.verdicts] == ["yes", "no"]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="does not fit"):
        read_answer('{"verdicts": [{"verdict": "maybe so"}]}', Verdicts)


def test_a_hostile_answer_costs_no_more_than_an_honest_one() -> None:
    for text in (
        "{" * 1_000_000,
        '{"a":' * 100_000,
        "[" * 1_000_000,
        '"' * 1_000_001,
        "<think>" * 200_000,
        '{"' * 500_000,
        "{ " * 500_000,
        "<think></think>" * 70_000,
        '{"a":1}' * 140_000,
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - several reasons
            read_answer(text, Reply)


def test_of_values_that_do_not_fit_a_few_are_looked_at() -> None:
    """Each is an object of the validator's: of an answer of 4 MB they took 2 GB, and the event loop stood for 45 s."""
    from deepeval.metrics.faithfulness.schema import Truths, Verdicts

    with pytest.raises(ValueError, match="400,000 values do not fit"):
        read_answer(f'{{"truths": [{",".join(400_000 * ["1"])}]}}', Truths)
    with pytest.raises(ValueError, match="300,000 values do not fit"):
        read_answer(f'{{"verdicts": [{",".join(300_000 * ["{}"])}]}}', Verdicts)
    with pytest.raises(ValueError, match="has 4,000,000 characters; at most 1,000,000 are read as JSON"):
        read_answer("1" * 4_000_000, Truths)


# --- over HTTP: what a server needs left out, and where it puts its text ---------------------------------------------------

Serve = Callable[[dict[str, Any]], tuple[int, Any]]


def completion(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": "stop"}], "model": "m"}


GOOD = '{"score": 7, "reason": "good"}'


@asynccontextmanager
async def serving(serve: Serve, **settings: Any) -> AsyncIterator[tuple[OpenAIClient, list[dict[str, Any]]]]:
    """A client of a server of that behaviour, and the requests that it gets."""
    from aiohttp import web

    bodies: list[dict[str, Any]] = []

    async def handle(request: web.Request) -> web.Response:
        bodies.append(await request.json())
        status, body = serve(bodies[-1])
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")

    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    client = client_of(f"http://127.0.0.1:{port}/v1", **settings)
    try:
        yield client, bodies
    finally:
        await client.close()
        await runner.cleanup()


async def answered(client: OpenAIClient, *, times: int = 6) -> Any:
    """The first answer, or error, asked again as a call is while the request changes."""
    for _ in range(times):
        try:
            return await client.ask("prompt", Reply)
        except JudgeError as error:
            if not error.has_changed_request:
                return error
    raise AssertionError("the request changed without end")


async def asked(serve: Serve, **settings: Any) -> tuple[Any, list[dict[str, Any]]]:
    async with serving(serve, **settings) as (client, bodies):
        return await answered(client), bodies


@pytest.mark.parametrize(
    "message",
    [
        {"content": GOOD},
        {"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": GOOD}]},
        {"content": None, "reasoning_content": GOOD},
        {"content": "", "reasoning": GOOD},
        {"content": None, "tool_calls": [{"type": "function", "function": {"name": "Reply", "arguments": GOOD}}]},
        {"content": "Let me score it.", "tool_calls": [{"type": "function", "function": {"name": "Reply", "arguments": GOOD}}]},
    ],
)  # fmt: skip
async def test_the_text_is_found_wherever_a_server_puts_it(message: dict[str, Any]) -> None:
    answer, _ = await asked(lambda _: (200, completion(**message)))
    assert read_answer(answer.text, Reply).model_dump() == {"score": 7, "reason": "good"}


@pytest.mark.parametrize("status", [200, 201, 206])
async def test_any_status_of_success_is_one(status: int) -> None:
    answer, _ = await asked(lambda _: (status, "\ufeff" + json.dumps(completion(content=GOOD))))
    assert answer.text == GOOD


async def test_an_error_is_one_whatever_the_status_line_is() -> None:
    error, _ = await asked(lambda _: (200, {"error": {"code": 429, "message": "Rate limit exceeded"}}))
    assert what_the_run_does(error) == WAITS
    error, _ = await asked(
        lambda _: (200, {"choices": [{"error": {"code": 502, "message": "provider"}, "message": {}}]})
    )
    assert what_the_run_does(error) == TRIES_AGAIN
    error, _ = await asked(lambda _: (200, {"error": {"code": 402, "message": "Insufficient credits"}}))
    assert what_the_run_does(error) == HOLDS
    error, _ = await asked(lambda _: (200, {"error": "out of memory"}))
    assert what_the_run_does(error) == TRIES_AGAIN


@pytest.mark.parametrize(
    ("body", "does"),
    [
        ({"code": 429, "message": "Rate limit exceeded"}, WAITS),
        ({"object": "error", "message": "too many", "type": "rate_limit_exceeded"}, WAITS),
        ({"message": "no capacity", "code": "internal"}, TRIES_AGAIN),
        ({"detail": "upstream is down"}, TRIES_AGAIN),
        ({"code": 401, "message": "bad key"}, HOLDS),
        ({"choices": [], "code": 429, "message": "Rate limit exceeded"}, WAITS),
    ],
)
async def test_an_error_without_a_frame_is_one_too(body: dict[str, Any], does: str) -> None:
    error, _ = await asked(lambda _: (200, body))
    assert what_the_run_does(error) == does


@pytest.mark.parametrize(
    "words",
    [
        "Failed to initialize samplers: failed to parse grammar",
        'Invalid JSON payload received. Unknown name "additionalProperties"',
        "response_format json_schema is not supported",
        "what nobody has worded yet",
    ],
)
async def test_a_server_without_structured_output_is_asked_in_words(words: str) -> None:
    def serve(body: dict[str, Any]) -> tuple[int, Any]:
        return (400, {"error": {"message": words}}) if "response_format" in body else (200, completion(content=GOOD))

    answer, bodies = await asked(serve)
    assert answer.text == GOOD
    assert [body.get("response_format", {}).get("type") for body in bodies] == ["json_schema", "json_object", None]


async def test_a_parameter_that_is_named_is_left_out_and_the_structure_stays() -> None:
    def gpt5(body: dict[str, Any]) -> tuple[int, Any]:
        if "temperature" in body:
            return 400, {
                "error": {"message": "Unsupported value: 'temperature' does not support 0", "param": "temperature"}
            }
        return 200, completion(content=GOOD)

    answer, bodies = await asked(gpt5)
    assert answer.text == GOOD
    assert [("temperature" in body, body["response_format"]["type"]) for body in bodies] == [
        (True, "json_schema"),
        (False, "json_schema"),
    ]


async def test_of_many_calls_under_way_none_gives_up_its_structure_for_a_parameter() -> None:
    """All of them are rejected for it; the first leaves it out for all."""

    def gpt5(body: dict[str, Any]) -> tuple[int, Any]:
        if "temperature" in body:
            return 400, {"error": {"message": "Unsupported value", "param": "temperature"}}
        return 200, completion(content=GOOD)

    async with serving(gpt5) as (client, bodies):
        answers = await asyncio.gather(*(answered(client) for _ in range(20)))
    assert {answer.text for answer in answers} == {GOOD}
    assert {body["response_format"]["type"] for body in bodies} == {"json_schema"}


async def test_a_step_down_from_structured_output_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def plain(body: dict[str, Any]) -> tuple[int, Any]:
        return (400, {"error": {"message": "no"}}) if "response_format" in body else (200, completion(content=GOOD))

    await asked(plain)
    assert [record.args for record in caplog.records if "response_format" in record.msg] == [
        ("json_schema", "json_object"),
        ("json_object", "prompt"),
    ]


async def test_a_server_that_knows_only_max_tokens_gets_that() -> None:
    def mistral(body: dict[str, Any]) -> tuple[int, Any]:
        if "max_completion_tokens" in body:
            return 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "max_completion_tokens"], "msg": "Extra inputs are not permitted"}]}  # fmt: skip
        return 200, completion(content=GOOD)

    answer, bodies = await asked(mistral, max_output_tokens=50)
    assert answer.text == GOOD
    assert (bodies[-1]["max_tokens"], bodies[-1]["response_format"]["type"]) == (50, "json_schema")


async def test_a_prompt_that_an_error_repeats_changes_no_request() -> None:
    def serve(_: dict[str, Any]) -> tuple[int, Any]:
        return 400, {"error": {"message": "bad: what is the temperature of 'x'?"}}

    error, bodies = await asked(serve, structured_output="json_schema")
    assert (what_the_run_does(error), len(bodies), bodies[0]["temperature"]) == (ASKS, 1, 0.0)


async def test_a_server_that_refuses_in_every_form_is_asked_in_each_once() -> None:
    error, bodies = await asked(lambda _: (400, {"error": {"message": "no"}}))
    assert (what_the_run_does(error), len(bodies)) == (ASKS, 3)


# --- a proxy between us and the judge ------------------------------------------------------------------------------------------


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    """An HTTP proxy that answers for every host, and what was asked of it: the first line of each request."""
    asked: list[str] = []
    body = json.dumps(completion(content=GOOD))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        asked.append(head.splitlines()[0])
        await reader.readexactly(int(re.findall(r"(?i)content-length: (\d+)", head)[0]))
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked
    server.close()


def through(url: str) -> OpenAIClient:
    return client_of(url)


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_a_judge_that_only_the_proxy_can_resolve_is_reached(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    url, asked = proxy
    monkeypatch.setenv(variable, url)
    client = through("http://judge.invalid/v1")
    assert (await client.ask("p", Reply)).text == GOOD
    assert asked == ["POST http://judge.invalid/v1/chat/completions HTTP/1.1"]
    await client.close()


async def test_no_proxy_is_obeyed(proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    url, asked = proxy
    monkeypatch.setenv("HTTP_PROXY", url)
    monkeypatch.setenv("NO_PROXY", "judge.invalid")
    client = through("http://judge.invalid/v1")
    with pytest.raises(JudgeError, match="cannot be resolved"):
        await client.ask("p", Reply)
    assert asked == []
    await client.close()


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://localhost:1/v1", "http://[::1]:1/v1"])
def test_no_proxy_stands_before_this_machine(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    assert proxy_for(url) is None
    assert proxy_for("http://judge.example/v1") == "http://proxy.example"


@pytest.mark.parametrize(
    ("named", "used"),
    [
        ("proxy.example:3128", "http://proxy.example:3128"),
        ("https://proxy.example", "https://proxy.example"),
        ("http://me:pw@proxy.example", "http://me:pw@proxy.example"),
    ],
)
def test_a_proxy_may_be_named_without_a_scheme(monkeypatch: pytest.MonkeyPatch, named: str, used: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", named)
    assert proxy_for("https://judge.example/v1") == used


@pytest.mark.parametrize(
    "named", ["socks5://me:secret@proxy.example", "socks5h://proxy.example:1080", "http://", "://x"]
)
def test_a_proxy_that_does_not_speak_http_is_a_mistake_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    monkeypatch.setenv("ALL_PROXY", named)
    with pytest.raises(ConfigError, match="http://HOST:PORT") as error:
        proxy_for("https://judge.example/v1")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("no_proxy", "host", "stands_before"),
    [
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.0.0.0/8", "11.1.2.3", True),
        ("a.example, 10.1.0.0/16", "10.1.2.3", False),
        ("fd00::/8", "[fd00::1]", False),
        ("10.0.0.0/8", "judge.example", True),
        ("rubbish/8", "10.1.2.3", True),
    ],
)
def test_no_proxy_may_name_a_network(
    monkeypatch: pytest.MonkeyPatch, no_proxy: str, host: str, stands_before: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert (proxy_for(f"http://{host}/v1") is not None) is stands_before


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "metadata.google.internal",
        "[fd00:ec2::254]",
        "metadata.google.internal.",
        "METADATA.google.internal",
        "ｍetadata.google.internal",
        "metadata。google。internal",
        "metadata.azure.internal",
        "[::169.254.169.254]",
        "[::ffff:169.254.169.254]",
        "[2002:a9fe:a9fe::]",
        "[64:ff9b::a9fe:a9fe]",
        "[::ffff:0:a9fe:a9fe]",
        "[64:ff9b:1::a9fe:a9fe]",
        "[64:ff9b:1:a9fe:a9:fe00::]",
        "[fe80::5efe:a9fe:a9fe]",
        "2852039166",
        "0xa9fea9fe",
        "169.254.43518",
        "100.100.100.200",
    ],
)
async def test_a_proxy_is_no_way_to_a_clouds_credentials(
    proxy: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    url, asked = proxy
    monkeypatch.setenv("HTTP_PROXY", url)
    client = through(f"http://{host}/v1")
    with pytest.raises(JudgeError, match="where clouds keep credentials"):
        await client.ask("p", Reply)
    assert asked == []
    await client.close()
