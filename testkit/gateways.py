"""Real gateways before the judge of a test: nginx and LiteLLM's proxy, each on a free port of loopback."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testkit.must_have import missing
from testkit.waiting import wait_until

LITELLM = "QUEUE_EVAL_TEST_LITELLM"  # the command of an environment with litellm[proxy]: it is no dependency of ours
LITELLM_WITHIN_S = 90.0  # it takes ten seconds to import

NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log {folder}/access.log;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  limit_req_zone $server_name zone=one:1m rate={per_s}r/s;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass {judge}; proxy_read_timeout {timeout_s}s; {more} }}
  }}
}}
"""

LITELLM_CONFIG = """
model_list:
  - {{model_name: judge-small, litellm_params: {{model: openai/judge-small, api_base: "{judge}", api_key: sk-behind}}}}
litellm_settings: {{num_retries: 0, request_timeout: 10}}
router_settings: {{num_retries: 0, disable_cooldowns: true}}
general_settings: {{master_key: {key}, disable_model_info_refresh: true}}
"""


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, judge: str, *, per_s: int = 1000, more: str = "", timeout_s: int = 10) -> Iterator[str]:
    """Run nginx before `judge` (its URL), which keeps its path. `more`: directives of the location."""
    binary = shutil.which("nginx", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])) or missing("nginx")
    port = free_port()
    origin = judge.removesuffix("/v1")
    text = NGINX.format(folder=folder, port=port, judge=origin, per_s=per_s, more=more, timeout_s=timeout_s)
    (folder / "nginx.conf").write_text(text)
    command = [binary, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with _serving(command, port, within_s=10):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def litellm(folder: Path, judge: str, *, key: str) -> Iterator[str]:
    """Run LiteLLM's proxy, without a database and without a way out; skip where it is not installed."""
    binary = os.environ.get(LITELLM) or shutil.which("litellm")
    if binary is None:
        missing(f"LiteLLM ({LITELLM} names its command)", unless=True)
    port = free_port()
    (folder / "litellm.yaml").write_text(LITELLM_CONFIG.format(judge=judge, key=key))
    command = [binary, "--config", str(folder / "litellm.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    with _serving(command, port, within_s=LITELLM_WITHIN_S, cwd=folder, LITELLM_LOCAL_MODEL_COST_MAP="True"):
        yield f"http://127.0.0.1:{port}/v1"


@contextmanager
def _serving(
    command: list[str], port: int, *, within_s: float, cwd: Path | None = None, **environment: str
) -> Iterator[None]:
    with subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            wait_until(lambda: process.poll() is not None or _listens(port), within_s=within_s)
            assert process.poll() is None, f"{command[0]} has ended with {process.returncode}"
            yield
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
