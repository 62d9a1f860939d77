"""How often eval.yaml has calls and cases tried again."""

from pydantic import Field

from queue_eval.core.settings.section import Seconds, Section


class RetrySettings(Section):
    call_attempts: int = Field(6, ge=1, le=100, description="requests for one judge call, the first included")
    case_attempts: int = Field(
        3,
        ge=1,
        le=100,
        description=(
            "failed deliveries of a case before it is dead; three that ended with their worker are too many as well"
        ),
    )
    invalid_answers: int = Field(
        2, ge=0, le=20, description="how often a judge call is repeated whose answer does not fit its schema"
    )
    base_delay_s: Seconds = 1.0
    max_delay_s: Seconds = 30.0
    call_timeout_s: Seconds = 120.0
    case_timeout_s: Seconds = Field(1800.0, description="without the time spent waiting for the limiter")
