"""The limits of eval.yaml."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from queue_eval.core.limits import MOST, MOST_REQUESTS, WINDOW_S, Lane, Limits, lane_of, limits_of, weight_of
from queue_eval.core.settings.section import Section


class LimitSettings(Section):
    requests_per_minute: float | None = Field(None, gt=0, le=MOST_REQUESTS)
    tokens_per_minute: float | None = Field(None, gt=0, le=MOST, description="input and output together")
    input_tokens_per_minute: float | None = Field(
        None, gt=0, le=MOST, description="where the provider counts them apart"
    )
    output_tokens_per_minute: float | None = Field(None, gt=0, le=MOST, description="the same")
    burst: float | None = Field(
        None,
        ge=1,
        le=MOST,
        description="requests that the provider takes at once. Chosen by the burst rule when absent",
    )
    window: Literal["sliding", "fixed", "bucket"] = Field(
        "sliding", description="how the provider counts: sliding is safe for all three"
    )
    window_s: float = Field(
        60.0,
        ge=WINDOW_S[0],
        le=WINDOW_S[1],
        description=(
            "the provider's window. 1 where it enforces by the second. The limits are per minute whatever it is"
        ),
    )
    max_in_flight: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="judge calls at once, of all workers of all runs. Found out where a judge gets slow",
    )
    settle: Literal["adjust", "estimate"] = Field(
        "adjust",
        description=(
            "adjust: the provider charges the tokens that were used, estimate: it charges what was asked for,"
            " max_output_tokens included"
        ),
    )
    headers: bool = Field(True, description="obey lower limits that the answers' headers name, per minute")
    priority: Literal["pr", "nightly"] | Annotated[float, Field(ge=0.001, le=1e6)] = Field(
        "nightly",
        description="share beside other runs under the same limit: pr (weight 100), nightly (weight 1), or a weight",
    )

    @field_validator("priority", mode="before")
    @classmethod
    def _a_weight(cls, priority: Any) -> Any:
        try:
            weight_of("" if isinstance(priority, bool) else priority)
        except (ValueError, TypeError):
            raise ValueError(
                f"{priority!r} is no priority; write pr, nightly or a weight from 0.001 to 1,000,000"
            ) from None
        return priority

    @field_validator(
        "requests_per_minute", "tokens_per_minute", "input_tokens_per_minute", "output_tokens_per_minute", mode="before"
    )
    @classmethod
    def _a_number(cls, limit: Any) -> Any:
        if isinstance(limit, bool):
            # TRY004: pydantic reports a ValueError alone
            raise ValueError(f"{str(limit).lower()} is no limit; write a number, or leave it out")  # noqa: TRY004
        return limit

    @property
    def per_minute(self) -> Limits:
        return limits_of(self.model_dump())

    def lane(self, run_id: str) -> Lane:
        """Return the run's lane in the limiter's queue."""
        return lane_of(run_id, self.model_dump())
