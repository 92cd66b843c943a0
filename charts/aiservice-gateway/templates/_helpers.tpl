{{- /* Prefix of all names: the release's name, with the chart's name unless it says it already. */ -}}
{{- define "aiservice-gateway.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels that select the pods of one component. Args: root, component. */ -}}
{{- define "aiservice-gateway.selectorLabels" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- /* Labels of an object. Args: root, component. */ -}}
{{- define "aiservice-gateway.labels" -}}
{{ include "aiservice-gateway.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: aiservice
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Metadata of an object. Args: root, name, component (gateway), namespace (the release's; "" for cluster-wide objects),
labels, annotations. */ -}}
{{- define "aiservice-gateway.metadata" -}}
metadata:
  name: {{ .name }}
  {{- with ternary .namespace .root.Release.Namespace (hasKey . "namespace") }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "aiservice-gateway.labels" (dict "root" .root "component" (default "gateway" .component)) | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "aiservice-gateway.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "aiservice-gateway.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.create is false: set serviceAccount.name to a ServiceAccount that exists" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* A full image reference. Args: root, image {registry, repository, tag}. */ -}}
{{- define "aiservice-gateway.image" -}}
{{- with .image.registry }}{{ . | trimSuffix "/" }}/{{ end -}}{{ .image.repository }}:{{ default .root.Chart.AppVersion .image.tag }}
{{- end -}}

{{- define "aiservice-gateway.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "aiservice-gateway.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
