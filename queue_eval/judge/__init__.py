"""The only importer of DeepEval, and the clients that reach a judge model.

DeepEval reads its environment while it is imported: telemetry off (it delays the exit by seconds without a network), no
`.env` file into our environment, no key file, no judge but ours, its own timeouts off (ours govern), its cache out of
the working directory.
"""

import os
import stat
import tempfile
from pathlib import Path


def _cache() -> Path:
    """Return a folder of this user's. The name is no secret, and another user may have taken it."""
    folder = Path(tempfile.gettempdir()) / f"queue-eval-deepeval-{os.getuid() if hasattr(os, 'getuid') else 'user'}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        facts = folder.lstat()
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid():
            return folder
    except (OSError, AttributeError):
        pass
    return Path(tempfile.mkdtemp(prefix="queue-eval-deepeval-"))


for _name, _value in {
    "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
    "DEEPEVAL_DISABLE_DOTENV": "1",
    "DEEPEVAL_DISABLE_LEGACY_KEYFILE": "1",
    "DEEPEVAL_DISABLE_TIMEOUTS": "1",
    "DEEPEVAL_SDK_RETRY_PROVIDERS": "*",
    "DEEPEVAL_UPDATE_WARNING_OPT_IN": "0",
    "DEEPEVAL_EVAL_MODE": "llm",  # another mode asks a judge of DeepEval's own, past the limiter and the books
    "DEEPEVAL_CACHE_FOLDER": str(_cache()),
}.items():
    os.environ[_name] = _value
