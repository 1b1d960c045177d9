{{/*
Rules for a component in the namespaces that are served: a ClusterRole with its binding, or a Role with its binding in each listed namespace.
Takes {root, component, pod, rules}.
*/}}
{{- define "aixcoder.servedNamespaces" -}}
{{- $this := . }}
{{- $labels := include "aixcoder.labels" . }}
{{- $account := include "aixcoder.serviceAccount" . }}
{{- $name := printf "%s-%s" (include "aixcoder.clusterName" .root) .component }}
{{- range $namespace := .root.Values.namespaces | default (list "") }}
{{- $kind := ternary "Role" "ClusterRole" (ne $namespace "") }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- $labels | nindent 4 }}
rules: {{- $this.rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata:
  name: {{ $name }}
  {{- with $namespace }}
  namespace: {{ . }}
  {{- end }}
  labels: {{- $labels | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $account }}
    namespace: {{ $this.root.Release.Namespace | quote }}
{{- end }}
{{- end }}
