{{/* What the gateway may do in a namespace whose AixcoderDeployments it serves: see them and their replicas' addresses. It writes nothing. */}}
{{- define "aixcoder.gatewayRules" -}}
- apiGroups: [serving.aixcoder.io]
  resources: [aixcoderdeployments]
  verbs: [list, watch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [list, watch]
{{- end }}
