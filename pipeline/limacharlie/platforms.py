"""Names of the numbers that stand for platforms and architectures in sensors, events and selectors."""

from __future__ import annotations

# The number is the first byte of 32 bits; a number that is not here stays unknown, whatever its first digit is.
_PLATFORMS = {
    0x01: "crowdstrike xml wel msdefender duo okta sentinel_one github slack cef lc_event azure_ad azure_monitor canary_token"
    " guard_duty windows itglue k8s_pods zeek mac_unified_logging azure_event_hub_namespace azure_key_vault"
    " azure_kubernetes_service azure_network_security_group azure_sql_audit email fortigate trend_worryfree netscaler"
    " paloalto_fw iis linux hubspot zendesk pandadoc falconcloud mimecast sublime box cylance proofpoint entraid wiz bitwarden"
    " trend_micro otel cortex_xdr macos harmony threatlocker halopsa cato gmail",
    0x40: "ios",
    0x50: "android",
    0x60: "chrome",
    0x70: "vpn",
    0x80: "text",
    0x90: "json",
    0xA0: "gcp",
    0xB0: "aws",
    0xC0: "carbon_black",
    0xD0: "1password",
    0xE0: "office365",
    0xF0: "sophos",
}
PLATFORMS = {
    (first + index) << 24: name for first, names in _PLATFORMS.items() for index, name in enumerate(names.split())
}
_ARCHITECTURES = ("x86", "x64", "arm", "arm64", "alpine64", "chromium", "wireguard", "arml", "usp_adapter")
ARCHITECTURES = dict(enumerate(_ARCHITECTURES, start=1))
