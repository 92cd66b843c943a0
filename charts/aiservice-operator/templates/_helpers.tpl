{{- /* Prefix of all names: the release's name, with the chart's name unless it says it already. */ -}}
{{- define "aiservice-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "aiservice-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "aiservice-operator.labels" -}}
{{ include "aiservice-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: aiservice
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Metadata of an object. Args: root, name, namespace (the release's; "" for cluster-wide objects), labels, annotations. */ -}}
{{- define "aiservice-operator.metadata" -}}
metadata:
  name: {{ .name }}
  {{- with ternary .namespace .root.Release.Namespace (hasKey . "namespace") }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "aiservice-operator.labels" .root | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- /*
A role and its binding. Args: root, name, namespace ("": a ClusterRole), rules, account (a ServiceAccount of the release's namespace),
annotations.
*/ -}}
{{- define "aiservice-operator.role" -}}
{{- $kind := ternary "Role" "ClusterRole" (ne .namespace "") -}}
{{- $metadata := dict "root" .root "name" .name "namespace" .namespace "annotations" (default (dict) .annotations) -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
{{ include "aiservice-operator.metadata" $metadata }}
rules:
  {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
{{ include "aiservice-operator.metadata" $metadata }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
{{- end -}}

{{- define "aiservice-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "aiservice-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: set serviceAccount.name to a ServiceAccount that exists" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* A full image reference. Args: root, image {registry, repository, tag}. */ -}}
{{- define "aiservice-operator.image" -}}
{{- $registry := default .root.Values.image.registry .image.registry -}}
{{- $tag := default .root.Chart.AppVersion .image.tag -}}
{{- with $registry }}{{ . | trimSuffix "/" }}/{{ end -}}{{ .image.repository }}:{{ $tag }}
{{- end -}}

{{- /* What cannot work is refused here, before anything reaches the cluster. */ -}}
{{- define "aiservice-operator.validate" -}}
{{- if and (gt (int .Values.replicas) 1) (not .Values.leaderElection.enabled) -}}
{{- fail (printf "replicas is %d but leaderElection.enabled is false: two active operators would undo each other's work; set replicas to 1 or turn leader election on" (int .Values.replicas)) -}}
{{- end -}}
{{- $election := .Values.leaderElection -}}
{{- if not (and (gt (int $election.leaseSeconds) (int $election.renewSeconds)) (gt (mul 10 (int $election.renewSeconds)) (mul 12 (int $election.retrySeconds)))) -}}
{{- fail "leaderElection: leaseSeconds must be above renewSeconds, and renewSeconds above 1.2 x retrySeconds" -}}
{{- end -}}
{{- end -}}
