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
  resources:
    {{- toYaml .Values.download.resources | nindent 4 }}
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
