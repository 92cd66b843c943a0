{{- /* What the operator may do in the namespaces that it watches: the verbs it uses, and no others. */ -}}
{{- define "aiservice-operator.rules" -}}
- apiGroups: [aiservice.dev]
  resources: [aiservices]
  verbs: [list, watch]
- apiGroups: [aiservice.dev]
  resources: [modelcaches]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [aiservice.dev]
  resources: [aiservices/status, modelcaches/status]
  verbs: [patch]
# Owner references that block deletion need it where OwnerReferencesPermissionEnforcement is on, as on OpenShift.
- apiGroups: [aiservice.dev]
  resources: [aiservices/finalizers, modelcaches/finalizers]
  verbs: [update]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
# The garbage collector deletes these after their owner: the operator has no right to delete anyone's data.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services, serviceaccounts, persistentvolumeclaims]
  verbs: [get, list, watch, create, patch]
# These have no data in them, and go when the spec no longer asks for them.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
# Why a pod is not scheduled or a claim not bound is told in Events only.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
{{- if .Values.rollOnConfigChange }}
# Those that a spec names, read by name to see that they change; never listed, never watched.
- apiGroups: [""]
  resources: [secrets, configmaps]
  verbs: [get]
{{- end }}
{{- end -}}

{{- /* What it needs to see whether a GPU is free: what nodes have, and what the pods of all namespaces take of it. */ -}}
{{- define "aiservice-operator.nodeRules" -}}
- apiGroups: [""]
  resources: [nodes]
  verbs: [get, list]
- apiGroups: [""]
  resources: [pods]
  verbs: [list]
{{- end -}}

{{- /* What the Job that runs at the end may do, and only while it runs. */ -}}
{{- define "aiservice-operator.releaseRules" -}}
- apiGroups: [aiservice.dev]
  resources: [modelcaches]
  verbs: [list, patch]
{{- end -}}

{{- /* The Lease of the leader election, in the operator's own namespace. */ -}}
{{- define "aiservice-operator.leaseRules" -}}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "aiservice-operator.fullname" . }}]
  verbs: [get, update]
{{- end -}}
