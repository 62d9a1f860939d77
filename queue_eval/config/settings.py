"""What eval.yaml may hold. The field descriptions are what editors show, by way of the JSON schema."""

from pydantic import Field

from queue_eval.config.kubernetes_settings import KubernetesSettings
from queue_eval.config.redis_settings import RedisSettings
from queue_eval.core.settings.run import RunSettings
from queue_eval.core.settings.section import Section


class DatasetBounds(Section):
    max_cases: int = Field(1_000_000, gt=0)
    max_case_bytes: int = Field(2_000_000, gt=0, le=50_000_000)
    max_depth: int = Field(32, gt=0, le=200)
    max_decompression_ratio: int = Field(200, gt=0)


class Settings(RunSettings):
    """eval.yaml"""

    dataset: str = Field(
        min_length=1,
        description=(
            "a .jsonl, .json or .csv file of cases (or .gz of one), relative to this file, or - for standard input"
        ),
    )
    store: str = Field(
        "runs",
        min_length=1,
        description="place for results and reports: a directory, relative to this file, or s3://bucket/prefix",
    )
    redis: RedisSettings = RedisSettings()
    kubernetes: KubernetesSettings | None = None
    dataset_bounds: DatasetBounds = DatasetBounds()

    @property
    def frozen(self) -> RunSettings:
        """Return what the manifest keeps: everything that decides the outcome, nothing about where it runs."""
        return RunSettings.model_validate(self.model_dump(mode="json", include=set(RunSettings.model_fields)))
