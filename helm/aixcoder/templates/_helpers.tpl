{{/* Names, labels, images and the parts that the pods share. Each helper takes what its comment says. */}}

{{/* Name of the release's objects, at most 40 characters so that every suffix fits. Takes the root. */}}
{{- define "aixcoder.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains "aixcoder" $name) }}{{ $name = printf "%s-aixcoder" $name }}{{ end -}}
{{- $name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Name of cluster-wide objects: two releases of one name in two namespaces must not share them. Takes the root. */}}
{{- define "aixcoder.clusterName" -}}
{{ .Release.Namespace }}-{{ include "aixcoder.name" . }}
{{- end }}

{{/* What a selector matches: never changes over the life of a release. Takes {root, component}. */}}
{{- define "aixcoder.selector" -}}
app.kubernetes.io/name: aixcoder
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Labels of an object. Takes {root, component}. */}}
{{- define "aixcoder.labels" -}}
{{- $ours := include "aixcoder.selector" . | fromYaml -}}
{{- $_ := set $ours "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $ours "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- $_ := set $ours "helm.sh/chart" (printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_")) -}}
{{- merge $ours .root.Values.commonLabels | toYaml -}}
{{- end }}

{{/* Labels of a pod: without versions, so that a chart upgrade which changes nothing else restarts nothing. Takes {root, component, pod}. */}}
{{- define "aixcoder.podLabels" -}}
{{- merge (include "aixcoder.selector" . | fromYaml) .pod.podLabels .root.Values.commonLabels | toYaml -}}
{{- end }}

{{/* An image's reference. Takes {root, image}. */}}
{{- define "aixcoder.image" -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* Name of a component's service account. Takes {root, component, pod}. */}}
{{- define "aixcoder.serviceAccount" -}}
{{ .pod.serviceAccount.name | default (printf "%s-%s" (include "aixcoder.name" .root) .component) }}
{{- end }}

{{/* Name of the Secret with the operator's key. Takes the root. */}}
{{- define "aixcoder.keySecret" -}}
{{ .Values.operatorKey.existingSecret | default (printf "%s-operator-key" (include "aixcoder.name" .)) }}
{{- end }}

{{/* Name of the Secret with the key that operator and gateway share. Takes the root. */}}
{{- define "aixcoder.dataKeySecret" -}}
{{ .Values.dataKey.existingSecret | default (printf "%s-data-key" (include "aixcoder.name" .)) }}
{{- end }}

{{/* Security, pull Secrets and place of every pod of the chart. Takes {root, component, pod}; pod is the component's part of the values. */}}
{{- define "aixcoder.podBase" -}}
securityContext: {{- toYaml .root.Values.podSecurityContext | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .pod.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .pod.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Spread over nodes, where the values say nothing else. Takes {root, component, pod}. */}}
{{- define "aixcoder.spread" -}}
topologySpreadConstraints:
{{- if .pod.topologySpreadConstraints }}
  {{- toYaml .pod.topologySpreadConstraints | nindent 2 }}
{{- else }}
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "aixcoder.selector" . | nindent 8 }}
    # A rollout's old pods do not count, or the new ones would be spread around them.
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}

{{/* Image and security of every container of the chart. Takes the root. */}}
{{- define "aixcoder.containerBase" -}}
image: {{ include "aixcoder.image" (dict "root" . "image" .Values.image.control) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext: {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}
