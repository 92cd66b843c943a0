{{- /* The operator's configuration file; `aiservice_operator.settings` reads it and refuses what it does not know. */ -}}
{{- define "aiservice-operator.config" -}}
{{- $images := dict -}}
{{- $flavour := ternary "-cuda" "" (eq .Values.engineFlavour "cuda") -}}
{{- range $engine, $image := .Values.engines -}}
{{- $tagged := merge (dict "tag" (default (printf "%s%s" $.Chart.AppVersion $flavour) $image.tag)) $image -}}
{{- $_ := set $images $engine (include "aiservice-operator.image" (dict "root" $ "image" $tagged)) -}}
{{- end -}}
watch:
  namespaces: {{ toJson .Values.watch.namespaces }}
  labels: {{ toJson .Values.watch.labels }}
rollOnConfigChange: {{ .Values.rollOnConfigChange }}
images:
  {{- toYaml $images | nindent 2 }}
imagePullPolicy: {{ .Values.workloads.imagePullPolicy }}
imagePullSecrets: {{ toJson .Values.workloads.imagePullSecrets }}
profiles:
  {{- toYaml .Values.profiles | nindent 2 }}
download:
  image: {{ include "aiservice-operator.image" (dict "root" . "image" .Values.download.image) }}
  backoffLimit: {{ int .Values.download.backoffLimit }}
  progressIntervalSeconds: {{ .Values.download.progressIntervalSeconds }}
  verifyIntervalHours: {{ int .Values.download.verifyIntervalHours }}
  allowedHosts: {{ toJson .Values.download.allowedHosts }}
  deniedNetworks: {{ toJson .Values.download.deniedNetworks }}
  env: {{ toJson .Values.download.env }}
  resources:
    {{- toYaml .Values.download.resources | nindent 4 }}
network:
  enabled: {{ .Values.network.enabled }}
  allowFrom:
    - podLabels:
        {{- include "aiservice-operator.selectorLabels" . | nindent 8 }}
      namespaceLabels:
        kubernetes.io/metadata.name: {{ .Release.Namespace }}
    {{- /* Labels of the gateway's pods that none of its values changes. */}}
    - podLabels:
        app.kubernetes.io/component: gateway
        app.kubernetes.io/part-of: aiservice
      namespaceLabels:
        kubernetes.io/metadata.name: {{ default .Release.Namespace .Values.network.gatewayNamespace }}
    - podLabels:
        app.kubernetes.io/name: prometheus
      namespaceLabels:
        kubernetes.io/metadata.name: {{ .Values.network.prometheusNamespace }}
    {{- with .Values.network.allowFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
monitoring:
  enabled: {{ .Values.monitoring.enabled }}
  labels: {{ toJson .Values.monitoring.labels }}
  interval: {{ .Values.monitoring.interval }}
leaderElection:
  enabled: {{ .Values.leaderElection.enabled }}
  name: {{ include "aiservice-operator.fullname" . }}
  leaseSeconds: {{ int .Values.leaderElection.leaseSeconds }}
  renewSeconds: {{ int .Values.leaderElection.renewSeconds }}
  retrySeconds: {{ int .Values.leaderElection.retrySeconds }}
probes:
  port: 8080
log:
  level: {{ .Values.log.level }}
  format: {{ .Values.log.format }}
{{- end -}}
