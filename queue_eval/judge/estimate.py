"""What a judge call will take, before it is asked; calls of the same kind teach what the next one takes."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from queue_eval.core.limits import Charge
from queue_eval.core.weight import estimated_tokens

log = logging.getLogger("queue_eval.judge")

Count = Callable[[str], int]

EXPECTED_OUTPUT_TOKENS = 150.0  # until answers were seen
LEARN = 0.05  # of each answer, once some were seen
VOCABULARY_WITHIN_S = 10.0


@dataclass(slots=True)
class _Kind:
    """Calls that want the same schema."""

    seen: int = 0
    per_counted: float = 1.0  # tokens charged per token counted: the schema and the chat's frame come on top
    output: float = EXPECTED_OUTPUT_TOKENS

    def learn(self, per_counted: float, output: int) -> None:
        self.seen += 1
        gain = max(LEARN, 1 / self.seen)  # the first one is worth more than any guess
        self.per_counted += gain * (per_counted - self.per_counted)
        self.output += gain * (output - self.output)


class Estimates:
    """Token counts of prompts, calibrated by what the provider charged for earlier ones."""

    def __init__(self, *, count: Count = estimated_tokens, output_tokens: int | None = None) -> None:
        """`output_tokens`: what the provider charges for an answer whatever its length; None: what it really has."""
        self.count = count  # tokens of a prompt, before they are calibrated; once for each call, since it may take long
        self._output_tokens = output_tokens
        self._all = _Kind()
        self._kinds: dict[str, _Kind] = {}

    def charge(self, counted: int, kind: str, elsewhere: float | None = None) -> Charge:
        """`elsewhere`: the output tokens that other processes' answers took, for as long as none was seen here."""
        known = self._kinds.get(kind, self._all)
        output = known.output if known.seen or elsewhere is None else elsewhere
        if self._output_tokens is not None:
            output = self._output_tokens
        return Charge(input_tokens=int(counted * known.per_counted) + 1, output_tokens=int(output))

    @property
    def output_tokens(self) -> float:
        """Of an answer of any kind, in the mean."""
        return self._all.output

    def learn(self, counted: int, kind: str, *, input_tokens: int, output_tokens: int) -> None:
        if kind not in self._kinds:
            self._kinds[kind] = _Kind(per_counted=self._all.per_counted, output=self._all.output)
        per_counted = input_tokens / max(1, counted)
        for known in (self._kinds[kind], self._all):
            known.learn(per_counted, output_tokens)


def counted_by_tiktoken(model: str) -> Count | None:
    """None when the package, the model's vocabulary or the way to it is missing: a characters' ratio, calibrated,
    serves as well.
    """
    found: list[Count] = []

    def load() -> None:
        try:
            import tiktoken  # noqa: PLC0415 - optional: the extra `tiktoken`

            encoding = tiktoken.encoding_for_model(model)
        except ImportError:
            log.info(
                "input tokens are estimated by length, not counted",
                extra={"event": "tokenizer_unavailable", "reason": "tiktoken is not installed"},
            )
            return
        except Exception as error:  # noqa: BLE001 - an unknown model, a vocabulary that cannot be fetched: we go on
            reason = f"{type(error).__name__}: {error}"[:300]
            log.info(
                "input tokens are estimated by length, not counted",
                extra={"event": "tokenizer_unavailable", "reason": reason},
            )
            return
        found.append(lambda prompt: len(encoding.encode_ordinary(prompt)))

    # it may fetch the vocabulary, and knows no timeout
    thread = threading.Thread(target=load, name="tiktoken", daemon=True)
    thread.start()
    thread.join(VOCABULARY_WITHIN_S)
    return found[0] if found else None
