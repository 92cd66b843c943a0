{{- /* Name of the Secret with the URL of a store. Args: root, store (postgresql or redis). Empty: the store is embedded. */ -}}
{{- define "aiservice-gateway.storeSecret" -}}
{{- $values := index .root.Values .store -}}
{{- if $values.existingSecret -}}
{{- $values.existingSecret -}}
{{- else if or $values.url $values.bundled.enabled -}}
{{- printf "%s-%s" (include "aiservice-gateway.fullname" .root) .store -}}
{{- end -}}
{{- end -}}

{{- /* The variable that takes the URL of a store, from its Secret; nothing when it is embedded. Args: root, store, variable. */ -}}
{{- define "aiservice-gateway.storeEnv" -}}
{{- $values := index .root.Values .store -}}
{{- with include "aiservice-gateway.storeSecret" . }}
- name: {{ $.variable }}
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ ternary $values.secretKey $.variable (ne $values.existingSecret "") }}
{{- end }}
{{- end -}}

{{- /* How many of the ways to reach a store are chosen. Args: the store's values. */ -}}
{{- define "aiservice-gateway.storeChoices" -}}
{{- len (compact (list .existingSecret .url (ternary "bundled" "" .bundled.enabled))) -}}
{{- end -}}

{{- /* What cannot work is refused here, before anything reaches the cluster, with the sentence that mends it. */ -}}
{{- define "aiservice-gateway.validate" -}}
{{- if and .Values.auth.existingSecret .Values.auth.jwtSecret -}}
{{- fail "set auth.existingSecret or auth.jwtSecret, not both" -}}
{{- else if not (or .Values.auth.existingSecret .Values.auth.jwtSecret .Values.auth.jwksUrl) -}}
{{- fail (printf "the gateway needs the key that signs JWTs: kubectl -n %s create secret generic aiservice-jwt --from-literal=JWT_SECRET=... and set auth.existingSecret=aiservice-jwt (for evaluation: set auth.jwtSecret), or set auth.jwksUrl to your issuer's keys" .Release.Namespace) -}}
{{- else if and .Values.auth.moreSecretsKey (not .Values.auth.existingSecret) -}}
{{- fail "auth.moreSecretsKey is a key of auth.existingSecret, which is not set" -}}
{{- else if and .Values.auth.jwtSecret (lt (len .Values.auth.jwtSecret) 32) -}}
{{- fail "auth.jwtSecret is too short to be safe: HS256 needs at least 32 characters (openssl rand -base64 48 makes one)" -}}
{{- end -}}
{{- range $store := list "postgresql" "redis" -}}
{{- $choices := include "aiservice-gateway.storeChoices" (index $.Values $store) | int -}}
{{- if gt $choices 1 -}}
{{- fail (printf "set only one of %s.existingSecret, %s.url and %s.bundled.enabled" $store $store $store) -}}
{{- else if and (eq $choices 0) (not $.Values.embedded.enabled) -}}
{{- fail (printf "the gateway needs %s: set %s.existingSecret to a Secret with its URL, or, for evaluation, %s.bundled.enabled=true or embedded.enabled=true" (ternary "PostgreSQL for usage records" "Redis for tenant limits" (eq $store "postgresql")) $store $store) -}}
{{- else if and (eq $choices 0) (gt (int $.Values.replicas) 1) -}}
{{- fail (printf "replicas is %d but %s is embedded in the pod, where the others do not see it: set replicas to 1, or %s.existingSecret" (int $.Values.replicas) $store $store) -}}
{{- end -}}
{{- end -}}
{{- if and (gt (int .Values.workers) 1) (not (include "aiservice-gateway.storeSecret" (dict "root" . "store" "redis"))) -}}
{{- fail (printf "workers is %d but redis is embedded, so each of them would count the limits of tenants by itself: set workers to 1, or redis.existingSecret" (int .Values.workers)) -}}
{{- end -}}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) -}}
{{- fail "ingress.enabled is true: set ingress.hosts to the host names of the gateway" -}}
{{- end -}}
{{- $own := list -}}
{{- range fromYamlArray (include "aiservice-gateway.ownEnv" .) -}}
{{- $own = append $own .name -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if has .name $own -}}
{{- fail (printf "extraEnv states %s, which a value of this chart sets: state that value instead (the chart's README lists them)" .name) -}}
{{- end -}}
{{- end -}}
{{- if and (ne .Values.service.nodePort nil) (eq .Values.service.type "ClusterIP") -}}
{{- fail "service.nodePort is set but service.type is ClusterIP: set service.type to NodePort or LoadBalancer" -}}
{{- end -}}
{{- end -}}

{{- /* Environment of the gateway's container. */ -}}
{{- define "aiservice-gateway.env" -}}
{{ include "aiservice-gateway.ownEnv" . }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* The variables that this chart's values set. */ -}}
{{- define "aiservice-gateway.ownEnv" -}}
- name: GATEWAY_JWKS_URL
  value: {{ .Values.auth.jwksUrl | quote }}
{{- if or .Values.auth.existingSecret .Values.auth.jwtSecret }}
- name: JWT_SECRET
  valueFrom:
    secretKeyRef:
      {{- if .Values.auth.existingSecret }}
      name: {{ .Values.auth.existingSecret }}
      key: {{ .Values.auth.secretKey }}
      {{- else }}
      name: {{ include "aiservice-gateway.fullname" . }}-auth
      key: JWT_SECRET
      {{- end }}
{{- end }}
{{- with .Values.auth.moreSecretsKey }}
- name: GATEWAY_JWT_SECRETS
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.auth.existingSecret }}
      key: {{ . }}
{{- end }}
- name: GATEWAY_JWT_ISSUER
  value: {{ join "," .Values.auth.issuers | quote }}
- name: GATEWAY_JWT_AUDIENCE
  value: {{ join "," .Values.auth.audiences | quote }}
- name: GATEWAY_JWT_LEEWAY_SECONDS
  value: {{ .Values.auth.leewaySeconds | quote }}
{{- include "aiservice-gateway.storeEnv" (dict "root" . "store" "postgresql" "variable" "DATABASE_URL") }}
{{- include "aiservice-gateway.storeEnv" (dict "root" . "store" "redis" "variable" "REDIS_URL") }}
- name: GATEWAY_SQLITE_FILE
  value: /data/usage.sqlite3
- name: GATEWAY_SPOOL_DIR
  value: /data/spool
- name: GATEWAY_NAMESPACES
  value: {{ join "," .Values.namespaces | quote }}
- name: GATEWAY_TENANT_CLAIM
  value: {{ .Values.auth.tenantClaim | quote }}
- name: GATEWAY_USER_CLAIM
  value: {{ .Values.auth.userClaim | quote }}
- name: GATEWAY_ROLE_CLAIM
  value: {{ .Values.auth.roleClaim | quote }}
- name: GATEWAY_ADMIN_ROLE
  value: {{ .Values.auth.adminRole | quote }}
- name: GATEWAY_REQUIRE_TENANT
  value: {{ .Values.auth.requireTenant | quote }}
- name: GATEWAY_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: GATEWAY_RATE_LIMIT_PER_HOUR
  value: {{ int64 .Values.rateLimitPerHour | quote }}
{{- with .Values.prices }}
- name: GATEWAY_PRICES
  value: {{ toJson . | quote }}
{{- end }}
{{- with .Values.reservedUnits }}
- name: GATEWAY_RESERVED_UNITS
  value: {{ toJson . | quote }}
{{- end }}
{{- with .Values.usageRetentionDays }}
- name: GATEWAY_USAGE_RETENTION_DAYS
  value: {{ int64 . | quote }}
{{- end }}
- name: GATEWAY_USAGE_DAILY_DAYS
  value: {{ int64 .Values.usageDailyDays | quote }}
- name: GATEWAY_MAX_BODY_BYTES
  value: {{ int64 .Values.maxBodyBytes | quote }}
- name: GATEWAY_HELD_UPLOAD_BYTES
  value: {{ int64 .Values.heldUploadBytes | quote }}
- name: GATEWAY_UPSTREAM_TIMEOUT_SECONDS
  value: {{ .Values.upstreamTimeoutSeconds | quote }}
- name: GATEWAY_FOLLOW_PODS
  value: {{ .Values.followPods | quote }}
- name: GATEWAY_HEADER_TIMEOUT_SECONDS
  value: {{ .Values.headerTimeoutSeconds | quote }}
- name: GATEWAY_BODY_TIMEOUT_SECONDS
  value: {{ .Values.bodyTimeoutSeconds | quote }}
{{- with .Values.corsOrigins }}
- name: GATEWAY_CORS_ORIGINS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.jobs }}
- name: GATEWAY_JOB_CONCURRENCY
  value: {{ int64 .concurrency | quote }}
- name: GATEWAY_JOB_ATTEMPTS
  value: {{ int64 .attempts | quote }}
- name: GATEWAY_JOB_DEADLINE_SECONDS
  value: {{ int64 .deadlineSeconds | quote }}
- name: GATEWAY_JOB_RETENTION_SECONDS
  value: {{ int64 .retentionSeconds | quote }}
- name: GATEWAY_JOB_INPUT_BYTES
  value: {{ int64 .inputBytes | quote }}
- name: GATEWAY_JOB_OUTPUT_BYTES
  value: {{ int64 .outputBytes | quote }}
- name: GATEWAY_JOB_MAX_OPEN
  value: {{ int64 .maxOpen | quote }}
{{- end }}
{{- with .Values.webhooks }}
{{- if .existingSecret }}
- name: GATEWAY_WEBHOOK_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .secretKey }}
{{- end }}
- name: GATEWAY_WEBHOOK_ALLOW_HTTP
  value: {{ .allowHttp | quote }}
- name: GATEWAY_WEBHOOK_ALLOW_PRIVATE
  value: {{ .allowPrivate | quote }}
- name: GATEWAY_WEBHOOK_RETRY_SECONDS
  value: {{ join "," .retrySeconds | quote }}
{{- end }}
{{- with .Values.idempotency }}
- name: GATEWAY_IDEMPOTENCY_SECONDS
  value: {{ int64 .retentionSeconds | quote }}
- name: GATEWAY_IDEMPOTENCY_MAX_BYTES
  value: {{ int64 .maxBytes | quote }}
{{- end }}
- name: GATEWAY_WORKERS
  value: {{ int64 .Values.workers | quote }}
- name: GATEWAY_LEASE_SECONDS
  value: {{ .Values.leaseSeconds | quote }}
{{- with .Values.otlpEndpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
- name: GATEWAY_DRAIN_SECONDS
  value: {{ .Values.drainSeconds | quote }}
- name: GATEWAY_DRAIN_DELAY_SECONDS
  value: {{ .Values.drainDelaySeconds | quote }}
- name: GATEWAY_LOG_LEVEL
  value: {{ .Values.logLevel }}
{{- end -}}

{{- /* Fields that all pods of this chart share. */ -}}
{{- define "aiservice-gateway.podPlacement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
