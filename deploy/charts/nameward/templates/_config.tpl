{{/* nameward.yaml: what the values say, and what follows from being in a cluster. */}}
{{- define "nameward.config" -}}
{{- $said := deepCopy .Values.config -}}
{{- $policy := deepCopy ($said.policy | default dict) -}}
{{- $_ := set $policy "source" "kubernetes" -}}
{{- $_ := set $policy "governedNamespaces" (include "nameward.governed" . | fromYaml) -}}
{{- if kindIs "slice" ($said.policy).governedNamespaces -}}
{{- $_ := set $policy "governedNamespaces" $said.policy.governedNamespaces -}}
{{- end -}}
{{- if not $policy.ceiling }}{{ $policy = omit $policy "ceiling" }}{{ end -}}
{{- $_ := set $said "policy" $policy -}}
{{- $_ := set $said "runtimeDir" .Values.agent.runtimeDir -}}
{{- $metrics := dict "listen" "127.0.0.1:9153" -}}
{{- if .Values.monitoring.enabled -}}
{{- $metrics = dict "tokenFile" "/etc/nameward-metrics/token" -}}
{{- if .Values.monitoring.tls -}}
{{- $_ := set $metrics "certFile" "/etc/nameward-metrics/tls.crt" -}}
{{- $_ := set $metrics "keyFile" "/etc/nameward-metrics/tls.key" -}}
{{- end -}}
{{- end -}}
{{- $_ := set $said "metrics" $metrics -}}
{{- if ne .Values.redis.mode "none" -}}
{{- $_ := set $said "state" (dict "redis" (include "nameward.redis.config" . | fromYaml)) -}}
{{- end -}}
{{- range $name, $section := $said -}}
{{- if and (kindIs "map" $section) (not $section) }}{{ $said = omit $said $name }}{{ end -}}
{{- end -}}
{{- toYaml $said -}}
{{- end }}

{{- define "nameward.redis.config" -}}
{{- if eq .Values.redis.mode "trial" }}
url: redis://{{ include "nameward.redis" . }}.{{ .Release.Namespace }}.svc:6379/0
{{- else }}
url: {{ .Values.redis.url | quote }}
{{- end }}
hmacKeyFile: /etc/nameward-redis/hmac-key
{{- $files := dict "password" "passwordFile" "previous-hmac-key" "previousHmacKeyFile" "sentinel-password" "sentinelPasswordFile" "ca.crt" "caFile" "tls.crt" "certFile" "tls.key" "keyFile" }}
{{- range .Values.redis.secretKeys }}
{{ get $files . }}: /etc/nameward-redis/{{ . }}
{{- end }}
{{- end }}
