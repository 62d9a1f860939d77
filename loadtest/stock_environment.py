"""DeepEval's own runner as a peer."""

from pathlib import Path


def stock_environment(folder: Path) -> dict[str, str]:
    """Switch off telemetry, which waits for a network, and timeouts, which a busy machine trips; cache in `folder`."""
    return {
        "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
        "DEEPEVAL_DISABLE_DOTENV": "1",
        "DEEPEVAL_DISABLE_LEGACY_KEYFILE": "1",
        "DEEPEVAL_DISABLE_TIMEOUTS": "1",
        "DEEPEVAL_UPDATE_WARNING_OPT_IN": "0",
        "DEEPEVAL_CACHE_FOLDER": str(folder / "deepeval"),
    }
