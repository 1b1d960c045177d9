{{/* The operator's settings file: aixcoder_operator/settings.py holds its types. Takes the root. */}}
{{- define "aixcoder.operatorSettings" -}}
{{- $name := include "aixcoder.name" . -}}
namespaces: {{ toJson .Values.namespaces }}
servingImage: {{ include "aixcoder.image" (dict "root" . "image" .Values.image.serving) }}
serving:
  env: {{ toJson .Values.serving.env }}
  volumes: {{ toJson .Values.serving.volumes }}
  volumeMounts: {{ toJson .Values.serving.volumeMounts }}
  imagePullSecrets: {{ concat .Values.image.pullSecrets .Values.serving.imagePullSecrets | uniq | toJson }}
gateway:
  namespace: {{ .Release.Namespace | quote }}
  service: {{ $name }}-gateway-internal
  publicService: {{ $name }}-gateway
  port: 9090
metricsPeers: {{ toJson .Values.networkPolicy.metrics }}
keyFile: /var/run/aixcoder/key/key
dataKeyFile: /var/run/aixcoder/data-key/key
lease:
  namespace: {{ .Release.Namespace | quote }}
  name: {{ $name }}-operator
clusterDomain: {{ .Values.clusterDomain }}
port: 8081
workers: {{ .Values.operator.workers }}
resyncSeconds: {{ .Values.operator.resyncSeconds }}
logLevel: {{ .Values.operator.logLevel }}
{{- end }}
