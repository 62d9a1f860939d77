"""The examples of docs/how-to/pipelines.md are what their programs read."""

import yaml

from queue_eval.cli.main import group
from testkit.measured import ROOT

ARGO = ROOT / "examples" / "argo" / "workflow.yaml"


def test_argo_reads_the_workflow() -> None:
    from hera.workflows import models

    template, cron = yaml.safe_load_all(ARGO.read_text())
    read = models.WorkflowTemplate.model_validate(template)
    assert [t.name for t in read.spec.templates or ()] == ["evaluation", "produce", "worker", "finalize"]
    labels = template["spec"]["podMetadata"]["labels"]
    policies = yaml.safe_load_all((ROOT / "k8s/components/network-policy/policies.yaml").read_text())
    assert labels in [policy["spec"]["podSelector"].get("matchLabels") for policy in policies]
    assert models.CronWorkflow.model_validate(cron).spec.concurrency_policy == "Forbid"
    # hera's models drop what they do not know: nothing of ours may be among that
    again = read.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert again["spec"]["templates"][1]["container"]["args"] == template["spec"]["templates"][1]["container"]["args"]
    assert set(template["spec"]) <= set(again["spec"])


def test_the_verbs_that_the_examples_use_are_there() -> None:
    import click

    template, _ = yaml.safe_load_all(ARGO.read_text())
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    commands = [part["container"]["args"] for part in template["spec"]["templates"][1:]]
    commands += [compose["services"][name]["command"] for name in ("producer", "worker", "finalizer")]
    for verb, *arguments in commands:
        command = group.get_command(click.Context(group), verb)
        assert command
        options = {name for parameter in command.params for name in parameter.opts}
        assert {a for a in arguments if a.startswith("--")} <= options
