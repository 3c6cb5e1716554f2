"""The chart's network policies: who reaches whom."""

from __future__ import annotations

from tests.deploy.chart import COMPONENT, OURS, RELEASE, Rendered
from tests.deploy.chart import selects as _selects


def test_policies_shut_what_nobody_opened(rendered: Rendered) -> None:
    """Else any pod of the cluster reaches Redis, whose messages workers obey."""
    policies = rendered.of("NetworkPolicy")
    if rendered.name == "open":
        assert not policies
        return
    default = policies.pop("default")["spec"]
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(default)
    assert all(_selects(default["podSelector"], pods.labels) for pods in rendered.pods)
    reachable = {name for name, policy in policies.items() if "Ingress" in policy["spec"]["policyTypes"]}
    assert reachable == ({"api", "redis", "minio"} if rendered.name == "trial" else {"api"})
    for name in reachable:
        (rule,) = policies[name]["spec"]["ingress"]
        (port,) = rule["ports"]
        assert port["port"] == {"api": 8000, "redis": 6379, "minio": 9000}[name]
        if name != "api":
            (peer,) = rule["from"]
            assert set(peer) == {"podSelector"}
            assert peer["podSelector"]["matchLabels"]["app.kubernetes.io/instance"] == RELEASE


def test_policies_leave_the_ways_open_that_the_service_needs(rendered: Rendered) -> None:
    """Else the service cannot reach its store, its Redis or the names of either, and says only that nothing answers."""
    policies = rendered.of("NetworkPolicy")
    if not policies:
        return
    ours = [pods for pods in rendered.pods if pods.labels[COMPONENT] in OURS]
    assert all(_selects(policies["egress"]["spec"]["podSelector"], pods.labels) for pods in ours)
    ports = {port["port"] for rule in policies["egress"]["spec"]["egress"] for port in rule["ports"]}
    store = {"trial": 9000, "sources": 9443}.get(rendered.name, 443)
    assert {53, 6379, 443, store} <= ports
    (caller,) = (pods for pods in ours if pods.name == "try")
    assert _selects(policies["try"]["spec"]["podSelector"], caller.labels)
    peers = policies["api"]["spec"]["ingress"][0]["from"]
    assert any(_selects(peer["podSelector"], caller.labels) for peer in peers if "podSelector" in peer)
