"""The objects of a run, as the API server takes them. docs/how-to/kubernetes.md gives the reason of each field."""

import base64
import copy
from typing import Any

from queue_eval.core.errors import (
    EXIT_ABORTED,
    EXIT_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_INTERRUPTED,
    ConfigError,
    DataError,
    JudgeRefusedError,
    NoInputError,
    StoreError,
    UsageError,
)
from queue_eval.kubernetes.names import (
    COMMIT_ANNOTATION,
    CONTAINER,
    JOB_NAME_LABEL,
    ROLE_LABEL,
    RUN_LABEL,
    abort_name,
    finalizer_name,
    producer_name,
    run_name,
    workers_name,
)
from queue_eval.kubernetes.plan import INPUT_MOUNT, STORE_MOUNT, RunPlan

Object = dict[str, Any]

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
USER_ID = 10001  # as in docker/Dockerfile
HOME = "/tmp"  # noqa: S108 - an emptyDir of the pod's own
ALIVE_FILE = f"{HOME}/alive"
ABORT_WAITS_S = 900  # a run may be cancelled before it is enqueued
SPARE_GRACE_S = 20  # after the worker's own: to release what it holds, while Redis or the store is slow
STATUS_EVERY_S = 5
LATER_THAN_WORKERS_S = 10  # the finalizer reports what there is when they have been ended
REPORTING_S = 3600  # a finalizer that was started late, or again, has so long beside

# What a restart cannot mend fails the Job at once, with the pod's message in its status.
_FINAL = [UsageError.exit_code, DataError.exit_code, ConfigError.exit_code]
_DISRUPTED = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}


def config_map(plan: RunPlan) -> Object:
    """The run's inputs, and the owner of everything else of it: deleting it deletes the run's objects."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(plan, run_name(plan.run_id), "input"),
        "immutable": True,
        "binaryData": {name: base64.b64encode(data).decode() for name, data in sorted(plan.input_files.items())},
    }


def producer(plan: RunPlan) -> Object:
    command = ["enqueue", f"{INPUT_MOUNT}/eval.yaml", "--run-id", plan.run_id, "--dataset", plan.dataset, "--json"]
    refused = [*_FINAL, NoInputError.exit_code, StoreError.exit_code, JudgeRefusedError.exit_code]
    pod = _pod(plan, producer_name(plan.run_id), "producer", [*command, "--store", plan.store], with_input=True)
    return _job(plan, producer_name(plan.run_id), "producer", pod, fail_on=refused, backoff_limit=4)


def workers(plan: RunPlan, *, number: int = 1, parallelism: int | None = None) -> Object:
    """`completions` stays unset: the first worker that finds the run drained ends the Job's growth, and so do all."""
    command = [
        "worker",
        plan.run_id,
        "--store",
        plan.store,
        "--wait-timeout",
        str(plan.settings.deadline_s),
        "--alive-file",
        ALIVE_FILE,
    ]
    name = workers_name(plan.run_id, number)
    pod = _pod(plan, name, "worker", command)
    pod["spec"]["terminationGracePeriodSeconds"] = round(plan.workers_grace_s + SPARE_GRACE_S)
    pod["spec"]["containers"][0] |= {"livenessProbe": _liveness(plan.liveness_s)}
    size = plan.settings.workers if parallelism is None else parallelism
    job = _job(plan, name, "worker", pod, fail_on=[EXIT_ABORTED, ConfigError.exit_code], backoff_limit=retries(size))
    # SIGTERM: it gave everything back. Never counted, so the deadline is what bounds it.
    job["spec"]["podFailurePolicy"]["rules"].insert(1, {"action": "Ignore", "onExitCodes": _codes([EXIT_INTERRUPTED])})
    job["spec"] |= {"parallelism": size, "podReplacementPolicy": "Failed"}
    if plan.settings.queue:
        job["metadata"]["labels"][QUEUE_LABEL] = plan.settings.queue
    return job


def retries(parallelism: int) -> int:
    """Pods of so many workers that may fail before their Job does."""
    return max(20, 4 * parallelism)


def finalizer(plan: RunPlan) -> Object:
    """It stands from the start, waits for drained, and its exit code is the verdict.

    A deadline that passes has one too: inconclusive.
    """
    timeout_s = plan.settings.deadline_s + LATER_THAN_WORKERS_S
    # a producer that waits for a node or a quota may take as long as the run
    command = ["finalize", plan.run_id, "--store", plan.store, "--wait-timeout", str(plan.settings.deadline_s)]
    command += ["--timeout", str(timeout_s)]
    name = finalizer_name(plan.run_id)
    pod = _pod(plan, name, "finalizer", [*command, "--status-interval", str(STATUS_EVERY_S)])
    verdicts = [EXIT_FAILED, EXIT_INCONCLUSIVE]
    hopeless = [*_FINAL, NoInputError.exit_code, StoreError.exit_code]
    job = _job(plan, name, "finalizer", pod, fail_on=[*verdicts, *hopeless], backoff_limit=20)
    job["spec"]["activeDeadlineSeconds"] = timeout_s + plan.settings.deadline_s + REPORTING_S
    return job


def further(job: Object, number: int, parallelism: int) -> Object:
    """Another Job of workers like one that the cluster holds."""
    body = _like(job, workers_name(job["metadata"]["labels"][RUN_LABEL], number), "worker")
    body["spec"] |= {"parallelism": parallelism, "backoffLimit": retries(parallelism)}
    return body


def again(job: Object) -> Object:
    """The same finalizer, for the cases that were still to come when it ended."""
    return _like(job, job["metadata"]["name"], "finalizer")


def abort_like(job: Object) -> Object:
    """The Job that aborts a run, from one of its workers': the same image, store and secrets."""
    run_id = job["metadata"]["labels"][RUN_LABEL]
    body = _like(job, abort_name(run_id), "abort")
    for field in ("parallelism", "podReplacementPolicy"):
        body["spec"].pop(field, None)
    body["metadata"]["labels"].pop(QUEUE_LABEL, None)  # it does not wait for a quota
    body["spec"] |= {"backoffLimit": 4, "podFailurePolicy": _failure_policy([*_FINAL, NoInputError.exit_code])}
    container = body["spec"]["template"]["spec"]["containers"][0]
    container.pop("livenessProbe", None)
    worker = container["args"]
    store = worker[worker.index("--store") + 1]
    container["args"] = ["abort", run_id, "--store", store, "--wait-timeout", str(ABORT_WAITS_S), "--json"]
    return body


def _like(job: Object, name: str, role: str) -> Object:
    """Without what the API server has added."""
    meta, spec = job["metadata"], copy.deepcopy(job["spec"])
    for field in ("selector", "suspend", "completionMode", "manualSelector", "completions"):
        spec.pop(field, None)
    labels = {**meta["labels"], "app.kubernetes.io/component": role, ROLE_LABEL: role}
    spec["template"]["metadata"] = {**spec["template"]["metadata"], "labels": labels}
    kept = {field: meta[field] for field in ("annotations", "ownerReferences") if field in meta}
    kept.get("annotations", {}).pop("kubectl.kubernetes.io/last-applied-configuration", None)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name, "labels": labels, **kept}, "spec": spec}


def owned(body: Object, owner: Object) -> Object:
    """The same object, gone when its owner goes."""
    meta = owner["metadata"]
    reference = {"apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": meta["name"], "uid": meta["uid"]}
    return {**body, "metadata": {**body["metadata"], "ownerReferences": [reference]}}


# --- the parts
# ---------------------------------------------------------------------------------------------------------


def _metadata(plan: RunPlan, name: str, role: str) -> Object:
    labels = {
        "app.kubernetes.io/name": "queue-eval",
        "app.kubernetes.io/component": role,
        RUN_LABEL: plan.run_id,
        ROLE_LABEL: role,
    }
    meta: Object = {"name": name, "labels": labels}
    if plan.commit_sha:
        meta["annotations"] = {COMMIT_ANNOTATION: plan.commit_sha}
    return meta


def _job(plan: RunPlan, name: str, role: str, pod: Object, *, fail_on: list[int], backoff_limit: int) -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(plan, name, role),
        "spec": {
            "backoffLimit": backoff_limit,
            "activeDeadlineSeconds": plan.settings.deadline_s,
            "ttlSecondsAfterFinished": plan.settings.keep_s,
            "podFailurePolicy": _failure_policy(fail_on),
            "template": pod,
        },
    }


def _failure_policy(fail_on: list[int]) -> Object:
    return {"rules": [_DISRUPTED, {"action": "FailJob", "onExitCodes": _codes(fail_on)}]}


def _codes(codes: list[int]) -> Object:
    return {"containerName": CONTAINER, "operator": "In", "values": sorted(codes)}


def _pod(plan: RunPlan, job_name: str, role: str, command: list[str], *, with_input: bool = False) -> Object:
    metadata = _metadata(plan, job_name, role)
    del metadata["name"]
    mounts = [{"name": "tmp", "mountPath": HOME}]
    volumes: list[Object] = [{"name": "tmp", "emptyDir": {}}, *plan.volumes]
    if plan.volumes:
        mounts.append({"name": "store", "mountPath": STORE_MOUNT})
    if with_input:
        mounts.append({"name": "input", "mountPath": INPUT_MOUNT})
        volumes.append({"name": "input", "configMap": {"name": run_name(plan.run_id)}})
    container = {
        "name": CONTAINER,
        "image": plan.image,
        "imagePullPolicy": plan.settings.image_pull_policy,
        "args": command,
        "env": _environment(plan, role),
        "envFrom": [{"secretRef": {"name": name}} for name in plan.secrets_of(role)],
        "resources": {"requests": plan.settings.requests, "limits": plan.settings.limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # the last words of a pod that failed stand in its status: who may only look there reads them too
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [*mounts, *plan.settings.mounts],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    return {"metadata": metadata, "spec": _merged(spec, plan.settings.pod)}


def _merged(spec: Object, own: Object) -> Object:
    """What is theirs goes beside what is ours; a field that both have is theirs."""
    beside = {
        "volumes": [*spec["volumes"], *own.get("volumes", ())],
        "securityContext": {**spec["securityContext"], **own.get("securityContext", {})},
    }
    return {**spec, **own, **beside}


def _environment(plan: RunPlan, role: str) -> list[Object]:
    def of_the_pod(path: str) -> Object:
        return {"fieldRef": {"fieldPath": path}}

    fixed = [{"name": "QUEUE_EVAL_REDIS_URL", "value": plan.redis_url_of(role)}]
    if role == "worker":
        fixed += [{"name": name, "value": value} for name, value in plan.worker_environment.items()]
    if plan.commit_sha:
        fixed.append({"name": "QUEUE_EVAL_COMMIT_SHA", "value": plan.commit_sha})
    return [
        *fixed,
        {"name": "RUN_ID", "valueFrom": of_the_pod(f"metadata.labels['{RUN_LABEL}']")},
        {"name": "POD_NAME", "valueFrom": of_the_pod("metadata.name")},
        {"name": "JOB_NAME", "valueFrom": of_the_pod(f"metadata.labels['{JOB_NAME_LABEL}']")},
    ]


def _liveness(quiet_s: float) -> Object:
    """The worker touches the file while its loop turns and its calls end or wait for the limiter."""
    script = f"test $(( $(date +%s) - $(stat -c %Y {ALIVE_FILE}) )) -lt {round(quiet_s)}"
    # until the first claim there may be no file: importing takes its time on a busy node
    return {
        "exec": {"command": ["sh", "-c", f"test ! -e {ALIVE_FILE} || {script}"]},
        "periodSeconds": 20,
        "timeoutSeconds": 5,
        "failureThreshold": 3,
    }
