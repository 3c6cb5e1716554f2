"""Schemas of the kinds of Kubernetes objects that others define: KEDA and the Prometheus operator."""

from __future__ import annotations

from typing import Any

Object = dict[str, Any]


def _schema(required: str = "", **properties: Object) -> Object:
    return {"type": "object", "required": required.split(), "additionalProperties": False, "properties": properties}


STRING, INTEGER = {"type": "string"}, {"type": "integer", "minimum": 0}
STRINGS = {"type": "object", "additionalProperties": STRING}
DURATION = {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"}
TRIGGER = {  # by type: what KEDA 2.16's scalers take, of which these are always given
    "metrics-api": _schema(
        "url format valueLocation targetValue",
        **dict.fromkeys(("url", "valueLocation", "targetValue", "activationTargetValue", "unsafeSsl"), STRING),
        format={"enum": ["prometheus"]},
    ),
    "prometheus": _schema(
        "serverAddress query threshold ignoreNullValues",
        **dict.fromkeys(("serverAddress", "query", "threshold", "activationThreshold", "unsafeSsl"), STRING),
        ignoreNullValues={"enum": ["false"]},
    ),
}
FOREIGN = {
    # From keda.sh_scaledobjects of KEDA 2.16.1, without what the chart does not use.
    "ScaledObject": _schema(
        "scaleTargetRef triggers",
        scaleTargetRef=_schema("name", name=STRING, kind=STRING, apiVersion=STRING),
        **dict.fromkeys(("minReplicaCount", "maxReplicaCount", "pollingInterval", "cooldownPeriod"), INTEGER),
        advanced=_schema(
            horizontalPodAutoscalerConfig=_schema(
                behavior=_schema(scaleDown=_schema(stabilizationWindowSeconds={**INTEGER, "maximum": 3600}))
            )
        ),
        triggers={
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [_schema("type metadata", type={"const": k}, metadata=v) for k, v in TRIGGER.items()]},
        },
    ),
    # From monitoring.coreos.com_servicemonitors of the Prometheus operator 0.84.1, likewise.
    "ServiceMonitor": _schema(
        "selector endpoints",
        selector=_schema(matchLabels=STRINGS),
        endpoints={
            "type": "array",
            "items": _schema(port=STRING, path=STRING, interval=DURATION, scrapeTimeout=DURATION),
        },
    ),
    # From monitoring.coreos.com_prometheusrules of the same, likewise.
    "PrometheusRule": _schema(
        "groups",
        groups={
            "type": "array",
            "items": _schema(
                "name rules",
                name=STRING,
                rules={
                    "type": "array",
                    "items": _schema(
                        "alert expr for labels annotations",
                        **dict.fromkeys(("alert", "expr"), STRING),
                        **{"for": {"type": "string", "pattern": "^[0-9]+(s|m|h)$"}},
                        **dict.fromkeys(("labels", "annotations"), STRINGS),
                    ),
                },
            ),
        },
    ),
}
