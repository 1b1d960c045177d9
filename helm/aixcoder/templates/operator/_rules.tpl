{{/*
What the operator may do in a namespace whose AixcoderDeployments it serves: what it does and no more. It may write Secrets (the Ray tokens) and
read none; server-side apply is a patch that may create. A test compares these rules with the API server's audit log.
*/}}
{{- define "aixcoder.operatorRules" -}}
- apiGroups: [serving.aixcoder.io]
  resources: [aixcoderdeployments]
  verbs: [get, list, watch]
- apiGroups: [serving.aixcoder.io]
  resources: [aixcoderdeployments/status]
  verbs: [update]
# Children name their owner with blockOwnerDeletion; where OwnerReferencesPermissionEnforcement is on, that needs this right.
- apiGroups: [serving.aixcoder.io]
  resources: [aixcoderdeployments/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods, services]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [controllerrevisions, replicasets, statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# One of each kind a deployment, which go with it: the garbage collector deletes them.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch]
# Whether a claim that a deployment names is there.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}
