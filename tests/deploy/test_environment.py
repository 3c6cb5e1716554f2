"""The environment of the chart's containers: settings and credentials."""

from __future__ import annotations

import re

from tests.deploy.chart import OURS, ROOT, Helm, Rendered
from tests.deploy.chart import template as _template
from tests.deploy.kubernetes_schemas import Object

CREDENTIALS = {
    "KEEPMORE_REDIS_URL", "KEEPMORE_S3_ACCESS_KEY", "KEEPMORE_S3_SECRET_KEY", "KEEPMORE_S3_SOURCES",
    "KEEPMORE_API_KEYS", "KEEPMORE_API_KEY", "KEEPMORE_WEBHOOK_SECRET",
    "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "REDISCLI_AUTH",
}  # fmt: skip
# What is not a setting of the service: the key of `helm test`'s caller, the trial's servers, a user's own.
OTHERS = {"KEEPMORE_API_KEY", "MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD", "REDISCLI_AUTH", "HOME", "SSL_CERT_FILE"}
PLAIN = {"KEEPMORE_SCRATCH_BYTES"}  # settings of one component alone, which are no secret


def test_credentials_come_from_secrets_alone(rendered: Rendered) -> None:
    """Else a password is readable in a Deployment, in the release's history and in whatever logs either."""
    assert not rendered.of("Secret")
    assert not CREDENTIALS & set(rendered.of("ConfigMap")["settings"]["data"])
    for container in rendered.containers:
        for variable in container["env"]:
            if variable["name"] in CREDENTIALS:
                assert set(variable) == {"name", "valueFrom"}
                assert set(variable["valueFrom"]) == {"secretKeyRef"}
            else:
                assert variable["name"] in OTHERS | PLAIN, variable


def test_every_variable_is_a_documented_setting(rendered: Rendered) -> None:
    """Else a misspelled variable leaves the service with its default, and nobody is told."""
    table = (ROOT / "docs" / "service.md").read_text().partition("## Environment")[2].partition("\n## ")[0]
    rows = [row.split("|")[1] for row in table.splitlines() if row.startswith("|")]
    documented = set(re.findall(r"(?:KEEPMORE|OTEL)_[A-Z0-9_]+", "".join(rows)))
    names = {variable["name"] for container in rendered.containers for variable in container["env"]}
    assert names | set(rendered.of("ConfigMap")["settings"]["data"]) <= documented | OTHERS


def test_each_process_gets_what_it_needs(rendered: Rendered) -> None:
    """Else the API starts without keys, or the worker that ends a job cannot call its webhook."""
    settings = rendered.of("ConfigMap")["settings"]
    keys = set() if "KEEPMORE_S3_ROLE" in settings["data"] else {"KEEPMORE_S3_ACCESS_KEY", "KEEPMORE_S3_SECRET_KEY"}
    for container in rendered.containers:
        names = {variable["name"] for variable in container["env"]}
        if container["name"] in OURS:
            assert container["envFrom"] == [{"configMapRef": {"name": settings["metadata"]["name"]}}]
            assert names >= (keys if container["name"] == "try" else keys | {"KEEPMORE_REDIS_URL"})
        assert ("KEEPMORE_API_KEYS" in names) == (container["name"] in {"api", "bucket"})


def test_numbers_reach_the_service_as_they_were_written(helm: Helm) -> None:
    """Else twenty million becomes 2e+07, which the service refuses."""
    settings = _template(helm, values="sources").of("ConfigMap")["settings"]["data"]
    assert settings["KEEPMORE_MAX_BODY_BYTES"] == "20000000"
    assert settings["KEEPMORE_RECONCILE_S"] == "2.5"
    assert settings["KEEPMORE_ALLOWED_SOURCES"] == "s3://photos-kept/raw,s3://archive,https://images.example.com/"


def test_pods_change_with_the_settings_and_with_nothing_else(helm: Helm) -> None:
    """Else a changed setting is not in force, or every `helm upgrade` interrupts every training."""

    def templates(*options: str) -> list[Object]:
        return [deployment["spec"]["template"] for deployment in _template(helm, *options).of("Deployment").values()]

    before = templates()
    assert templates("--set", "api.replicas=5") == before
    after = templates("--set", "settings.logLevel=DEBUG")
    assert all(one != other for one, other in zip(before, after, strict=True))


def test_a_cloud_role_takes_the_place_of_keys(helm: Helm) -> None:
    """Else a pod waits for keys in a Secret that nobody has, or asks without credentials."""
    rendered = _template(helm, values="role")
    assert rendered.of("ConfigMap")["settings"]["data"]["KEEPMORE_S3_ROLE"] == "1"
    names = {variable["name"] for container in rendered.containers for variable in container["env"]}
    assert not names & {"KEEPMORE_S3_ACCESS_KEY", "KEEPMORE_S3_SECRET_KEY"}
    (account,) = rendered.of("ServiceAccount").values()
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
