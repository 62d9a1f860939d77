"""What `queue-eval init` writes."""

STARTER_YAML = """\
# yaml-language-server: $schema=eval.schema.json
# Check it with `queue-eval validate eval.yaml`, run it with `queue-eval run eval.yaml`.

dataset: cases.jsonl            # .jsonl, .json, .csv or .gz of one; relative to this file

metrics:                        # DeepEval metrics by class name; further keys are the constructor's parameters
  - {type: AnswerRelevancyMetric, threshold: 0.5}
  - {type: FaithfulnessMetric, threshold: 0.5}
  # - type: GEval
  #   name: Correctness
  #   criteria: "Is the answer right, given the expected one?"
  #   evaluation_params: [input, actual_output, expected_output]
  # - {type: my_package.my_module:MyMetric}

judge: {type: lexical}          # offline, compares words; for a first try. A real one:
# judge:
#   type: openai                # any OpenAI-compatible endpoint
#   model: gpt-5-mini
#   base_url: https://api.openai.com/v1
#   api_key_env: OPENAI_API_KEY # the NAME of the variable; secrets are never written anywhere
#   price: {input_per_million_usd: 0.25, output_per_million_usd: 2.0}

# limits: {requests_per_minute: 600, tokens_per_minute: 400000, window: sliding}
# workers: {processes: 2, concurrency: 32}

store: runs                     # results and reports of every run

gate:
  mode: block                   # warn: report, but exit 0
  metrics:
    Faithfulness: {min_mean: 0.5}
"""

STARTER_CASES = """\
{"input": "When was the Treaty of Westphalia signed?", "actual_output": "It was signed in 1648.", \
"expected_output": "In October 1648.", \
"retrieval_context": ["The Peace of Westphalia was signed in October 1648 in Osnabrück and Münster."]}
{"input": "How long may I return shoes?", "actual_output": "You may return shoes within 30 days with the receipt.", \
"expected_output": "Within 30 days, with the receipt.", \
"retrieval_context": ["Shoes may be returned within 30 days of purchase. A receipt is required."]}
"""
