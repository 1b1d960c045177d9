{{/* Annotations of an object of the hook that creates the key. Takes its weight. */}}
{{- define "aixcoder.keyHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
