"""What tokens cost. A model without a price is "unpriced": its tokens are reported and no figure is invented."""

from dataclasses import dataclass

from queue_eval.core.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    input_per_million_usd: float
    output_per_million_usd: float

    def cost_usd(self, usage: Usage) -> float:
        return self.of_tokens(usage.input_tokens, usage.output_tokens)

    def of_tokens(self, input_tokens: float, output_tokens: float) -> float:
        """Return USD."""
        return (input_tokens * self.input_per_million_usd + output_tokens * self.output_per_million_usd) / 1e6
