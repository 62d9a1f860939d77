"""How each metric class of DeepEval is served: by YAML as it is named here, or not, and why."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """`parameters`: as eval.yaml has them, beside type and name."""

    needs: str  # what a case must hold, or the metric be given
    parameters: dict[str, Any] = field(default_factory=dict)


ANSWER, TURNS = "input, actual_output", "turns"
TOOL = {"name": "search", "description": "finds pages"}

SINGLE: dict[str, Served] = {
    "AnswerRelevancyMetric": Served(needs=ANSWER),
    "ArgumentCorrectnessMetric": Served(needs="input, tools_called"),
    "BiasMetric": Served(needs=ANSWER),
    "ContextualPrecisionMetric": Served(needs="input, retrieval_context, expected_output"),
    "ContextualRecallMetric": Served(needs="input, retrieval_context, expected_output"),
    "ContextualRelevancyMetric": Served(needs="input, retrieval_context"),
    "ExactMatchMetric": Served(needs="actual_output, expected_output"),
    "FaithfulnessMetric": Served(needs=f"{ANSWER}, retrieval_context"),
    "GEval": Served(
        needs="what evaluation_params name, with name, and criteria or evaluation_steps",
        parameters={"evaluation_steps": ["Is it polite?"], "evaluation_params": ["input", "actual_output"]},
    ),
    "HallucinationMetric": Served(needs="input, actual_output, context"),
    "MisuseMetric": Served(needs=f"{ANSWER}, with domain", parameters={"domain": "travel"}),
    "NonAdviceMetric": Served(needs=f"{ANSWER}, with advice_types", parameters={"advice_types": ["medical"]}),
    "PIILeakageMetric": Served(needs=ANSWER),
    "PatternMatchMetric": Served(needs=f"{ANSWER}, with pattern", parameters={"pattern": "answer .*"}),
    "PromptAlignmentMetric": Served(
        needs=f"{ANSWER}, with prompt_instructions", parameters={"prompt_instructions": ["Be brief."]}
    ),
    "RoleViolationMetric": Served(needs=f"{ANSWER}, with role", parameters={"role": "a guide"}),
    "SummarizationMetric": Served(needs=ANSWER),
    "ToolCorrectnessMetric": Served(needs="input, tools_called, expected_tools"),
    "ToolPermissionMetric": Served(needs="tools_called, with allowed_tools", parameters={"allowed_tools": ["search"]}),
    "ToxicityMetric": Served(needs=ANSWER),
}
CONVERSATIONAL: dict[str, Served] = {
    "ConversationCompletenessMetric": Served(needs=TURNS),
    "ConversationalGEval": Served(
        needs=f"{TURNS}, with name, and criteria or evaluation_steps",
        parameters={"evaluation_steps": ["Is it polite?"], "evaluation_params": ["content"]},
    ),
    "GoalAccuracyMetric": Served(needs=TURNS),
    "KnowledgeRetentionMetric": Served(needs=TURNS),
    "RoleAdherenceMetric": Served(needs=f"{TURNS}, chatbot_role"),
    "ToolUseMetric": Served(needs=f"{TURNS}, with available_tools", parameters={"available_tools": [TOOL]}),
    "TopicAdherenceMetric": Served(needs=f"{TURNS}, with relevant_topics", parameters={"relevant_topics": ["towns"]}),
    "TurnContextualPrecisionMetric": Served(needs=f"{TURNS} with retrieval_context, expected_outcome"),
    "TurnContextualRecallMetric": Served(needs=f"{TURNS} with retrieval_context, expected_outcome"),
    "TurnContextualRelevancyMetric": Served(needs=f"{TURNS} with retrieval_context"),
    "TurnFaithfulnessMetric": Served(needs=f"{TURNS} with retrieval_context"),
    "TurnRelevancyMetric": Served(needs=TURNS),
}
# DeepEval puts their answers in the order in which they come, so that the reason's question may differ from run to run
REASON_VARIES = frozenset(("TurnFaithfulnessMetric",))
SOUND, IMAGES = (
    "refused: it scores sound, which a case does not hold",
    "refused: it scores images, which a case does not hold",
)
NOT_SERVED: dict[str, str] = {
    **dict.fromkeys(
        (
            "AgentLoopDetectionMetric",
            "PlanAdherenceMetric",
            "PlanQualityMetric",
            "StepEfficiencyMetric",
            "TaskCompletionMetric",
        ),
        "refused: it reads the trace of an agent's run, which a case does not hold",
    ),
    **dict.fromkeys(
        (
            "AgentResponsivenessMetric",
            "TurnTakingNaturalnessMetric",
            "AudioGlitchMetric",
            "AudioIntegrityMetric",
            "SpeechIntelligibilityMetric",
            "TranscriptionAccuracyMetric",
            "VoiceConsistencyMetric",
            "VoiceNaturalnessMetric",
            "VoiceReliabilityMetric",
        ),
        SOUND,
    ),
    **dict.fromkeys(
        (
            "ImageCoherenceMetric",
            "ImageEditingMetric",
            "ImageHelpfulnessMetric",
            "ImageReferenceMetric",
            "TextToImageMetric",
        ),
        IMAGES,
    ),
    **dict.fromkeys(
        ("DAGMetric", "ConversationalDAGMetric"),
        "needs Python: a graph of nodes. Name a metric of your own that has it",
    ),
    "JsonCorrectnessMetric": "needs Python: a class of pydantic. Name a metric of your own that has it",
    **dict.fromkeys(("JevEval", "ConversationalJevEval"), "refused: DeepEval's decision model judges it, not `judge`"),
    **dict.fromkeys(
        ("MCPTaskCompletionMetric", "MCPUseMetric", "MultiTurnMCPUseMetric"),
        "refused: a case does not hold MCP's own objects",
    ),
}


def table() -> list[str]:
    """For docs/reference/metrics.md."""
    served = [
        f"| `{name}` | {kind} | {one.needs} |"
        for kind, metrics in (("single turn", SINGLE), ("conversation", CONVERSATIONAL))
        for name, one in sorted(metrics.items())
    ]
    not_served = [f"| `{name}` | – | {why} |" for name, why in sorted(NOT_SERVED.items())]
    return ["| metric | scores | needs |", "|---|---|---|", *served, *not_served]
