{{/* Objects that operator and gateway have alike. Each takes {root, component, pod}. */}}

{{- define "aixcoder.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "aixcoder.name" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels: {{- include "aixcoder.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ .pod.podDisruptionBudget.maxUnavailable }}
  # A pod that never gets ready must not hold up a node's drain.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "aixcoder.selector" . | nindent 6 }}
{{- end }}

{{- define "aixcoder.serviceAccountObject" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "aixcoder.serviceAccount" . }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels: {{- include "aixcoder.labels" . | nindent 4 }}
  {{- with .pod.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "aixcoder.podMonitor" -}}
{{ include "aixcoder.podMonitorHead" . }}
spec:
  selector:
    matchLabels: {{- include "aixcoder.selector" . | nindent 6 }}
  podMetricsEndpoints:
    - port: {{ .port }}
      path: /metrics
      interval: {{ .root.Values.podMonitor.interval }}
      # What the operator tells of a deployment stands under the deployment's namespace, not under the operator's.
      honorLabels: true
{{- end }}

{{/* What all PodMonitors begin with. Takes {root, component}. */}}
{{- define "aixcoder.podMonitorHead" -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ include "aixcoder.name" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace | quote }}
  labels:
    {{- include "aixcoder.labels" . | nindent 4 }}
    {{- with .root.Values.podMonitor.labels }}{{ toYaml . | nindent 4 }}{{ end }}
{{- end }}
