"""The API server: plain objects in and out."""

import json
import logging
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tenacity
import yaml

from queue_eval.core.errors import ConfigError
from queue_eval.kubernetes.errors import REFUSED, BusyError, ClusterError, meaning, message, refusal

Object = dict[str, Any]

log = logging.getLogger("queue_eval.kubernetes")

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
WATCH_S = 240  # then the server ends the watch, and it is taken up where it was
PATIENCE_S = 60.0  # with a server that is busy or being restarted

_PATHS = {
    "configmaps": "/api/v1/namespaces/{ns}/configmaps",
    "pods": "/api/v1/namespaces/{ns}/pods",
    "events": "/api/v1/namespaces/{ns}/events",
    "jobs": "/apis/batch/v1/namespaces/{ns}/jobs",
}
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_UNTRUSTED = ("CERTIFICATE", "WRONG_VERSION_NUMBER")  # in TLS's words: what no waiting mends


def connect(context: str | None = None, namespace: str | None = None) -> "Cluster":
    """Connect as kubectl does.

    By KUBECONFIG or ~/.kube/config with its current context and namespace, else by the pod's own account.
    """
    try:
        from kubernetes import client, config  # noqa: PLC0415 - an extra, and half a second
    except ImportError:
        raise ConfigError(
            "kubernetes: the client is not installed; in a checkout: pip install '.[kubernetes]'"
        ) from None
    settings = client.Configuration()
    try:
        config.load_kube_config(context=context, client_configuration=settings, persist_config=False)
        _, active = config.list_kube_config_contexts()
        if context:
            active = next(c for c in config.list_kube_config_contexts()[0] if c["name"] == context)
        found = active["context"].get("namespace")
    except config.ConfigException as error:
        if context or not _NAMESPACE_FILE.exists():
            raise ConfigError(
                f"kubernetes: no cluster is configured ({str(error).strip()}); set KUBECONFIG, or name a context that"
                " it has with --context"
            ) from None
        config.load_incluster_config(client_configuration=settings)
        found = _NAMESPACE_FILE.read_text(encoding="utf-8").strip()
    except (yaml.YAMLError, LookupError, TypeError, ValueError, AttributeError, OSError) as error:
        # of a file that is torn the client repeats whatever came of reading it
        raise ConfigError(
            f"kubernetes: the configuration in KUBECONFIG or ~/.kube/config cannot be read ({type(error).__name__}:"
            f" {' '.join(str(error).split())}); mend it"
        ) from None
    settings.retries = False  # who calls us repeats
    chosen = namespace or found or "default"
    if not _NAMESPACE.fullmatch(chosen):
        raise ConfigError(f"kubernetes: {chosen!r} is no name of a namespace; correct --namespace, or the context's")
    return Cluster(client.ApiClient(settings), chosen, context)


class Cluster:
    """One namespace.

    Calls are made again for a while when the server is away or busy; watches are the caller's to take up.
    """

    def __init__(self, api: Any, namespace: str, context: str | None = None) -> None:
        self._api = api
        self.namespace = namespace
        self.here = f"-n {namespace}" + (
            f" --context {shlex.quote(context)}" if context else ""
        )  # for the next command
        self.requests = 0  # what a run costs the API server

    # --- methods -----------------------------------------------------------------------------------------------------

    def create(self, kind: str, body: Object) -> tuple[Object, bool]:
        """Create-once: the object that stands there under this name now, and whether it is new."""
        try:
            return self._patiently("POST", self._path(kind), body=body), True
        except ClusterError as error:
            if error.status not in (409, *REFUSED):
                raise
            # what a full quota refuses may stand there already: it looks first
            found = self.get(kind, body["metadata"]["name"])
            if found is None:
                raise refusal(error) from None
            return found, False

    def check(self, kind: str, body: Object) -> None:
        """ConfigError naming what the API server would not take.

        Nothing is created; what stands there already is another's matter.
        """
        try:
            self._patiently("POST", self._path(kind), body=body, query=_query(dryRun="All"))
        except ClusterError as error:
            if error.status in REFUSED and self.get(kind, body["metadata"]["name"]):
                return
            if error.status in (*REFUSED, 404):
                remedy = "mend that in the cluster, or correct kubernetes: in the eval YAML"
                raise ConfigError(f"{error}; {remedy}. Nothing was created") from None
            if error.status != 409:
                raise

    def get(self, kind: str, name: str) -> Object | None:
        try:
            return self._patiently("GET", self._path(kind, name))
        except ClusterError as error:
            if error.status != 404:
                raise
            return None

    def list(self, kind: str, *, labels: str = "", fields: str = "") -> tuple[list[Object], str]:
        """The objects, and the version from which a watch goes on."""
        query = _query(labelSelector=labels, fieldSelector=fields)
        body = self._patiently("GET", self._path(kind), query=query)
        return body.get("items") or [], body["metadata"]["resourceVersion"]

    def patch(self, kind: str, name: str, body: Object) -> Object:
        """A merge patch."""
        try:
            return self._patiently("PATCH", self._path(kind, name), body=body)
        except ClusterError as error:
            raise refusal(error) from None

    def delete(self, kind: str, name: str, *, uid: str = "") -> bool:
        """Delete it with everything that it owns. False when it was not there, or is another one than that of `uid`."""
        options: Object = {"propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self._patiently("DELETE", self._path(kind, name), body=options)
        except ClusterError as error:
            if error.status != 404 and not (uid and error.status == 409):
                raise
            return False
        return True

    def log(self, pod: str, *, tail: int | None = None) -> str:
        """What its container has printed; "" where it has not begun or is gone.

        BusyError at once where its node cannot be reached.
        """
        try:
            response = self._request("GET", f"{self._path('pods', pod)}/log", query=_query(tailLines=tail or ""))
        except ClusterError as error:
            if error.status in (400, 404):
                return ""
            raise
        return bytes(response.data).decode(errors="replace")

    def follow_log(self, pod: str, *, tail: int | None, since: str = "") -> Iterator[tuple[str, str]]:
        """(when, line), until its container ends or something between cuts the stream.

        `since`: such a when, of a fixed width.
        """
        path = f"{self._path('pods', pod)}/log"
        query = _query(follow="true", timestamps="true", tailLines=tail or "", sinceTime=since)
        response = self._request("GET", path, query=query, read_s=3600.0, stream=True)
        for line in _lines(response):
            when, _, text = line.decode(errors="replace").partition(" ")
            yield when, text

    def watch(self, kind: str, *, labels: str, version: str) -> Iterator[tuple[str, Object]]:
        """Changes since a version, until the server ends the stream. GoneError when it no longer knows them."""
        query = _query(
            labelSelector=labels,
            watch="true",
            resourceVersion=version,
            timeoutSeconds=WATCH_S,
            allowWatchBookmarks="true",
        )
        response = self._request("GET", self._path(kind), query=query, read_s=WATCH_S + READ_TIMEOUT_S, stream=True)
        for line in _lines(response):
            try:
                event = json.loads(line)
            except ValueError:
                raise BusyError("a watch broke off within a line") from None
            if event["type"] == "ERROR":
                raise meaning(event["object"].get("code", 0), event["object"].get("message", "watch ended"), "watch")
            yield event["type"], event["object"]

    # --- requests ----------------------------------------------------------------------------------------------------

    def _path(self, kind: str, name: str = "") -> str:
        return _PATHS[kind].format(ns=self.namespace) + (f"/{name}" if name else "")

    def _patiently(self, method: str, path: str, *, body: Object | None = None, query: Any = ()) -> Object:
        response = self._retrying()(self._request, method, path, body=body, query=query)
        try:
            found = json.loads(response.data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._no_api_server(response)
        return found

    def _no_api_server(self, response: Any) -> ConfigError:
        words = " ".join(response.data[:80].decode(errors="replace").split())
        return ConfigError(
            f"kubernetes: what answers at {self._api.configuration.host} is no API server ({response.status}:"
            f" {words!r}); correct the address in KUBECONFIG, or name another --context"
        )

    def _retrying(self) -> tenacity.Retrying:
        def error_of(state: tenacity.RetryCallState) -> BaseException | None:
            return state.outcome.exception() if state.outcome else None

        def pause_s(state: tenacity.RetryCallState) -> float:
            error = error_of(state)
            asked = error.after_s if isinstance(error, BusyError) else 0.0
            return max(asked, backoff(state))

        def note(state: tenacity.RetryCallState) -> None:
            if state.attempt_number == 1:
                error = error_of(state)
                log.warning(
                    "%s; trying again for %g s", error, PATIENCE_S, extra={"event": "unavailable", "reason": str(error)}
                )

        backoff = tenacity.wait_exponential(multiplier=0.2, max=5.0) + tenacity.wait_random(0, 0.2)
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(BusyError),
            wait=pause_s,
            before_sleep=note,
            stop=tenacity.stop_after_delay(PATIENCE_S),
            reraise=True,
        )

    def _request(
        self,
        method: str,
        path: str,
        *,
        body: Object | None = None,
        query: Any = (),
        read_s: float = READ_TIMEOUT_S,
        stream: bool = False,
    ) -> Any:
        import urllib3  # noqa: PLC0415 - comes with the client
        from kubernetes.client.exceptions import ApiException  # noqa: PLC0415

        headers = {"Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        request = self._api.param_serialize(
            method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
        )
        self.requests += 1
        try:
            response = self._api.call_api(*request, _request_timeout=(CONNECT_TIMEOUT_S, read_s))
            if response.status >= 300 or not stream:
                response.read()
        except ApiException as error:
            # the client's word for a connection that was never secure
            words = " ".join(str(error.reason).split())
            if not any(word in words for word in _UNTRUSTED):
                # a balancer whose server is away accepts and closes
                raise BusyError(
                    f"the API server at {self._api.configuration.host} cannot be reached: {words}"
                ) from None
            raise ConfigError(
                f"kubernetes: the API server at {self._api.configuration.host} is not the one that the configuration"
                f" trusts ({words}); correct certificate-authority"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise BusyError(f"the API server at {self._api.configuration.host} cannot be reached: {error}") from error
        is_elsewhere = 300 <= response.status < 400  # a proxy that wants a login
        if is_elsewhere or (response.status == 404 and not response.data.lstrip().startswith(b"{")):
            raise self._no_api_server(response)
        if response.status >= 300:
            words = message(response.data)
            raise meaning(response.status, words, method, after=response.headers.get("Retry-After"))
        return response


def _query(**parameters: Any) -> list[tuple[str, str]]:
    return [(name, str(value)) for name, value in parameters.items() if value != ""]


def _lines(response: Any) -> Iterator[bytes]:
    """BusyError when the connection breaks off."""
    import urllib3  # noqa: PLC0415 - as above

    held = b""
    try:
        for part in response.response.stream(amt=None, decode_content=False):
            *whole, held = (held + part).split(b"\n")
            yield from (line for line in whole if line)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise BusyError(f"a stream broke off: {error}") from error
    finally:
        response.response.release_conn()
    if held:
        yield held
