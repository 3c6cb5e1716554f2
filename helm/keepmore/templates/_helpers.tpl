{{- define "keepmore.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for the longest suffix. */}}
{{- define "keepmore.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- $name := include "keepmore.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end }}

{{- define "keepmore.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "keepmore.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{- $lacking := "serviceAccount.name: name the ServiceAccount that is there, or set serviceAccount.create" -}}
{{- required $lacking .Values.serviceAccount.name }}
{{- end -}}
{{- end }}

{{/* Labels that never change: (list . component); all pods of the release: (list .) */}}
{{- define "keepmore.selector" -}}
{{- $root := first . -}}
app.kubernetes.io/name: {{ include "keepmore.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- range rest . }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "keepmore.labels" -}}
{{- $root := first . -}}
{{ include "keepmore.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Name, namespace and labels of an object of a component: (list . component) */}}
{{- define "keepmore.metadata" -}}
name: {{ include "keepmore.fullname" (first .) }}-{{ last . }}
namespace: {{ (first .).Release.Namespace }}
labels:
  {{- include "keepmore.labels" . | nindent 2 }}
{{- end }}

{{- define "keepmore.endpoint" -}}
{{- if .Values.trial.enabled -}}
http://{{ include "keepmore.fullname" . }}-minio:9000
{{- else -}}
{{- required "settings.s3Endpoint: the S3 server of the store, https://host:port" .Values.settings.s3Endpoint }}
{{- end -}}
{{- end }}

{{- define "keepmore.store" -}}
{{- if .Values.trial.enabled -}}
{{- default (printf "s3://%s/store" .Values.trial.bucket) .Values.settings.store }}
{{- else -}}
{{- required "settings.store: where jobs and objects are, s3://bucket/prefix" .Values.settings.store }}
{{- end -}}
{{- end }}

{{- define "keepmore.s3Port" -}}
{{- $url := include "keepmore.endpoint" . | urlParse -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) -}}
{{- default (ternary "80" "443" (eq $url.scheme "http")) $port }}
{{- end }}

{{/* The URL of the API within the cluster. */}}
{{- define "keepmore.url" -}}
http://{{ include "keepmore.fullname" . }}-api.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end }}

{{/* (list . credential): where one credential is. Empty for an optional one of which nobody said in
     which Secret, and for the keys of S3 where a role takes their place. */}}
{{- define "keepmore.secretKeyRef" -}}
{{- $values := (first .).Values -}}
{{- if not (and $values.settings.s3Role (has (last .) (list "s3AccessKey" "s3SecretKey"))) -}}
{{- $credential := index $values.credentials (last .) -}}
{{- $secret := default $values.existingSecret $credential.existingSecret -}}
{{- if or $secret (not $credential.optional) -}}
{{- $lacking := "existingSecret: name the Secret that holds %s; docs/kubernetes.md shows how to make it" -}}
name: {{ required (printf $lacking $credential.key) $secret }}
key: {{ $credential.key }}
optional: {{ $credential.optional }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* (list . credential variable credential variable ...): environment variables from Secrets */}}
{{- define "keepmore.credentials" -}}
{{- $root := first . -}}
{{- $env := list -}}
{{- range $pair := chunk 2 (rest .) -}}
{{- with include "keepmore.secretKeyRef" (list $root (first $pair)) | fromYaml -}}
{{- $env = append $env (dict "name" (last $pair) "valueFrom" (dict "secretKeyRef" .)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $env }}
{{- end }}

{{/* (list . component): its variables beside the ConfigMap. All processes are told the same, since whichever ends a
     stage writes the report and calls the webhook; only the API has to know API keys. */}}
{{- define "keepmore.env" -}}
{{- $told := list (first .)
  "redisUrl" "KEEPMORE_REDIS_URL"
  "s3AccessKey" "KEEPMORE_S3_ACCESS_KEY"
  "s3SecretKey" "KEEPMORE_S3_SECRET_KEY"
  "s3Sources" "KEEPMORE_S3_SOURCES"
  "webhookSecret" "KEEPMORE_WEBHOOK_SECRET" -}}
{{- if eq (last .) "api" -}}
{{- $told = concat $told (list "apiKeys" "KEEPMORE_API_KEYS") -}}
{{- end -}}
{{- include "keepmore.credentials" $told }}
{{- with (index (first .).Values (last .)).extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* (list . component) */}}
{{- define "keepmore.image" -}}
{{- $common := (first .).Values.image -}}
{{- $image := (index (first .).Values (last .)).image -}}
{{- with $common.registry }}{{ . | trimSuffix "/" }}/{{ end -}}
{{- $image.repository }}:{{ coalesce $image.tag $common.tag (first .).Chart.AppVersion }}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{- define "keepmore.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The uid of a pod that writes nowhere but to its volumes. */}}
{{- define "keepmore.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* (list . component): the metadata of its pods, which change with the settings */}}
{{- define "keepmore.podMetadata" -}}
{{- $root := first . -}}
{{- $values := index $root.Values (last .) -}}
labels:
  {{- include "keepmore.selector" . | nindent 2 }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  {{- $settings := include (print $root.Template.BasePath "/configmap.yaml") $root | fromYaml }}
  checksum/settings: {{ toYaml $settings.data | sha256sum }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* (list . component): all of the pod but its containers and volumes */}}
{{- define "keepmore.pod" -}}
{{- $root := first . -}}
{{- $values := index $root.Values (last .) -}}
serviceAccountName: {{ include "keepmore.serviceAccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false # else Kubernetes sets KEEPMORE_* variables of its own
{{- with $values.terminationGracePeriodSeconds }}
terminationGracePeriodSeconds: {{ . }}
{{- end }}
securityContext:
  {{- include "keepmore.podSecurityContext" 10001 | nindent 2 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $field := list "priorityClassName" "runtimeClassName" "nodeSelector" "tolerations" "affinity" }}
{{- with get $values $field }}
{{ $field }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels:
        {{- include "keepmore.selector" $ | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end }}

{{/* (list . image of component): what all containers of the service have */}}
{{- define "keepmore.container" -}}
image: {{ include "keepmore.image" . }}
imagePullPolicy: {{ (first .).Values.image.pullPolicy }}
securityContext:
  {{- include "keepmore.securityContext" . | nindent 2 }}
envFrom:
  - configMapRef:
      name: {{ include "keepmore.fullname" (first .) }}-settings
{{- end }}

{{/* Whether a process without a port is alive: its event loop touched a file within a minute. */}}
{{- define "keepmore.aliveProbes" -}}
{{- range $probe, $pace := dict "startupProbe" (list 5 24) "readinessProbe" (list 15 3) "livenessProbe" (list 30 3) }}
{{ $probe }}:
  exec:
    command: [python, -m, keepmore_services.liveness]
  periodSeconds: {{ first $pace }}
  failureThreshold: {{ last $pace }}
  timeoutSeconds: 10
{{- end }}
{{- end }}

{{/* (list . lane target): a trigger of KEDA on the steps of a lane that wait or are under way. Every API process says
     the same, so Prometheus takes the largest. No answer is an error, after which KEDA leaves things as they are. */}}
{{- define "keepmore.trigger" -}}
{{- $root := index . 0 -}}
{{- $prometheus := $root.Values.keda.prometheus -}}
{{- if eq $root.Values.keda.trigger "prometheus" -}}
{{- $matchers := default (printf "namespace=%q" $root.Release.Namespace) $prometheus.matchers -}}
- type: prometheus
  metadata:
    {{- $lacking := "keda.prometheus.serverAddress: where the Prometheus is that keda.trigger asks" }}
    serverAddress: {{ required $lacking $prometheus.serverAddress }}
    query: {{ printf "max(keepmore_steps_outstanding{lane=%q,%s})" (index . 1) $matchers | squote }}
    threshold: {{ index . 2 | quote }}
    ignoreNullValues: "false"
{{- else -}}
- type: metrics-api
  metadata:
    url: {{ include "keepmore.url" $root }}/metrics
    format: prometheus
    valueLocation: {{ printf "keepmore_steps_outstanding{lane=%q}" (index . 1) | squote }}
    targetValue: {{ index . 2 | quote }}
{{- end }}
{{- end }}
