{{- define "lc-pipeline.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* 52 characters leave room for what is appended, and for the hash of a StatefulSet's pods. */}}
{{- define "lc-pipeline.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "lc-pipeline.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "lc-pipeline.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "lc-pipeline.selectorLabels" -}}
app.kubernetes.io/name: {{ include "lc-pipeline.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "lc-pipeline.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "lc-pipeline.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "lc-pipeline.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "lc-pipeline.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "lc-pipeline.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* The pipeline's configuration. The probes and the grace period rely on the two keys that are set here. */}}
{{- define "lc-pipeline.config" -}}
{{- range $key, $instead := dict "admin" "adminPort" "stop_timeout" "stopTimeoutSeconds" }}
{{- if hasKey $.Values.config $key }}
{{- fail (printf "config.%s is set by the chart: leave it out and use %s." $key $instead) }}
{{- end }}
{{- end }}
{{- $config := .Values.config | default (.Files.Get "files/config.yaml" | fromYaml) | deepCopy }}
{{- $_ := set $config "admin" (dict "listen" (printf "0.0.0.0:%d" (int .Values.adminPort))) }}
{{- $_ := set $config "stop_timeout" (printf "%ds" (int .Values.stopTimeoutSeconds)) }}
{{- toYaml $config }}
{{- end }}
