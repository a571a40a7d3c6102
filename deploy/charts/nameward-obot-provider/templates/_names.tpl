{{- define "provider.labels" -}}
{{ include "provider.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: nameward
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "provider.selector" -}}
app.kubernetes.io/name: nameward-obot-provider
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "provider.name" -}}
{{ .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "provider.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "provider.mcpNamespace" -}}
{{ required "mcpRuntimeNamespace is not set: Obot passes it; by hand, name the namespace of its MCP servers" .Values.mcpRuntimeNamespace }}
{{- end }}

{{- define "provider.storageURL" -}}
{{ required "obotStorageURL is not set: Obot passes it; by hand, https://SERVICE.NAMESPACE.svc:8443" .Values.obotStorageURL }}
{{- end }}

{{- /* Top-level values that this chart does not read: a later Obot may pass more, and must not fail by it. */}}
{{- define "provider.unread" -}}
{{- $read := list "releaseNamespace" "mcpRuntimeNamespace" "obotStorageURL" "secretName" "obotStorageTokenFile" "obot" "image" "imagePullSecrets" "egress" "storage" "policies" "serviceAccount" "runAsUser" "resources" "nodeSelector" "tolerations" "affinity" "priorityClassName" "podAnnotations" "podLabels" "log" "global" -}}
{{- $unread := list -}}
{{- range $key := keys .Values | sortAlpha }}{{ if not (has $key $read) }}{{ $unread = append $unread $key }}{{ end }}{{ end -}}
{{ join ", " $unread }}
{{- end }}
