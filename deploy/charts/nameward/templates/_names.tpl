{{/* Names, labels and texts that several templates share. */}}

{{- define "nameward.labels" -}}
app.kubernetes.io/name: nameward
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What selects the pods of one part: dict "root" $ "part" "agent". */}}
{{- define "nameward.selector" -}}
app.kubernetes.io/name: nameward
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "nameward.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end }}

{{- define "nameward.agent" -}}{{ printf "%s-agent" .Release.Name | trunc 63 }}{{- end }}
{{- define "nameward.controller" -}}{{ printf "%s-controller" .Release.Name | trunc 63 }}{{- end }}
{{- define "nameward.uninstall" -}}{{ printf "%s-uninstall" .Release.Name | trunc 63 }}{{- end }}
{{- define "nameward.test" -}}{{ printf "%s-test" .Release.Name | trunc 63 }}{{- end }}
{{- define "nameward.redis" -}}{{ printf "%s-redis" .Release.Name | trunc 63 }}{{- end }}

{{/* The namespaces that are governed: what the configuration says, else by label. As YAML. */}}
{{- define "nameward.governed" -}}
{{- $said := (.Values.config.policy).governedNamespaces -}}
{{- if $said -}}
{{ toYaml $said }}
{{- else -}}
matchLabels:
  nameward.dev/governed: "true"
{{- end -}}
{{- end }}

{{/* Values that only a person can know, asked for in a sentence. */}}
{{- define "nameward.checked" -}}
{{- if not (.Values.config.enforcement).clusterCIDRs -}}
{{- fail "\n\nSet config.enforcement.clusterCIDRs to the ranges of the cluster's pods, services and nodes, for example\n  --set 'config.enforcement.clusterCIDRs={10.244.0.0/16,10.96.0.0/12,192.168.0.0/24}'\nPods: kubectl get nodes -o jsonpath='{.items[*].spec.podCIDRs}' (or the CNI's own range); services: the range that\nkubectl -n default get service kubernetes lies in; nodes: kubectl get nodes -o wide. docs/kubernetes.md has them by cloud.\n" -}}
{{- end -}}
{{- if and (ne .Values.redis.mode "none") (not .Values.redis.existingSecret) -}}
{{- fail (printf "\n\nredis.mode is %s: set redis.existingSecret to a Secret in %s with hmac-key and password:\n  kubectl -n %s create secret generic nameward-redis --from-literal=hmac-key=$(openssl rand -hex 32) --from-literal=password=$(openssl rand -hex 32)\n" .Values.redis.mode .Release.Namespace .Release.Namespace) -}}
{{- end -}}
{{- if and (eq .Values.redis.mode "external") (not .Values.redis.url) -}}
{{- fail "\n\nredis.mode is external: set redis.url, for example rediss://nameward@redis.example.com:6379/0\n" -}}
{{- end -}}
{{- if and (eq .Values.redis.mode "trial") (not .Values.redis.trial.nodeCIDRs) -}}
{{- fail "\n\nredis.mode is trial: set redis.trial.nodeCIDRs to the nodes' addresses (kubectl get nodes -o wide): nobody else may ask it.\n" -}}
{{- end -}}
{{- if and .Values.monitoring.enabled (not .Values.monitoring.existingSecret) -}}
{{- fail (printf "\n\nmonitoring.enabled: set monitoring.existingSecret to a Secret in %s with a token, which Prometheus sends:\n  kubectl -n %s create secret generic nameward-metrics --from-literal=token=$(openssl rand -hex 32)\n" .Release.Namespace .Release.Namespace) -}}
{{- end -}}
{{- if and .Values.monitoring.serviceMonitor.enabled (not .Values.monitoring.enabled) -}}
{{- fail "\n\nmonitoring.serviceMonitor.enabled needs monitoring.enabled: until then the metrics are on the nodes' loopback alone.\n" -}}
{{- end -}}
{{- $own := lookup "v1" "Namespace" "" .Release.Namespace -}}
{{- if $own -}}
{{- $level := index ($own.metadata.labels | default dict) "pod-security.kubernetes.io/enforce" | default "privileged" -}}
{{- if ne $level "privileged" -}}
{{- fail (printf "\n\nNamespace %s admits %s pods only, and the agents are on the host's network:\n  kubectl label namespace %s --overwrite pod-security.kubernetes.io/enforce=privileged\n" .Release.Namespace $level .Release.Namespace) -}}
{{- end -}}
{{- end -}}
{{- end }}
