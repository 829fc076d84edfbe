"""The world that events tell of besides programs: users, files, modules, hosts. Data only."""

from __future__ import annotations

USERS = {
    "windows": (
        "NT AUTHORITY\\SYSTEM",
        "NT AUTHORITY\\NETWORK SERVICE",
        "CORP\\amira",
        "CORP\\josé.núñez",
        "CORP\\łukasz",
        "CORP\\佐藤",
    ),
    "linux": ("root", "deploy", "www-data", "postgres", "zoë"),
    "macos": ("root", "_windowserver", "amira", "zoë"),
}
HOMES = {"windows": "C:\\Users\\{user}\\", "linux": "/home/{user}/", "macos": "/Users/{user}/"}
PEOPLE = ("amira", "josé.núñez", "łukasz", "zoë", "佐藤", "o'brien")

# {n} is a number, so that one entry stands for many files.
FILES = {
    "windows": (
        "AppData\\Local\\Temp\\tmp{n}.tmp",
        "AppData\\Local\\Google\\Chrome\\User Data\\Default\\Cache\\Cache_Data\\f_{n}",
        "AppData\\Local\\Microsoft\\Windows\\INetCache\\IE\\{n}[1].js",
        "AppData\\Roaming\\Code\\User\\workspaceStorage\\{n}\\state.vscdb",
        "Documents\\Résumé – final ({n}).docx",
        "Downloads\\請求書-{n}.pdf",
        "Desktop\\🚀 launch plan {n}.xlsx",
        "AppData\\Roaming\\Microsoft\\Windows\\Recent\\Müller & Söhne <{n}>.lnk",
    ),
    "linux": (
        ".cache/pip/http/{n}",
        "build/obj/{n}.o",
        ".ssh/known_hosts.{n}",
        "données/résultats-{n}.csv",
        'notes/"quoted" {n}.txt',
        ".local/share/containers/storage/overlay/{n}/diff/etc/hosts",
    ),
    "macos": (
        "Library/Caches/com.apple.Safari/WebKitCache/Version 17/Records/{n}/Resource",
        "Library/Application Support/Google/Chrome/Default/Cache/{n}",
        "Documents/Présentation {n}.key",
        "Downloads/請求書-{n}.pdf",
        ".Trash/café\u0301 {n}.txt",
    ),
}
MODULES = {
    "windows": tuple(
        "C:\\Windows\\System32\\" + name
        for name in (
            "ntdll.dll",
            "kernel32.dll",
            "imm32.dll",
            "ws2_32.dll",
            "amsi.dll",
            "vaultcli.dll",
            "bcrypt.dll",
            "dbghelp.dll",
        )
    ),
    "linux": tuple(
        "/usr/lib/x86_64-linux-gnu/" + name
        for name in ("libc.so.6", "libssl.so.3", "libpthread.so.0", "libcurl.so.4", "libpam.so.0")
    ),
    "macos": (
        "/usr/lib/dyld",
        "/usr/lib/libSystem.B.dylib",
        "/System/Library/Frameworks/Security.framework/Versions/A/Security",
    ),
}

DOMAINS = (
    *(
        f"{host}.{zone}"
        for zone in ("example.com", "example.org", "example.net")
        for host in ("www", "api", "cdn", "mail", "login", "updates", "telemetry")
    ),
    "settings-win.data.microsoft.com",
    "clients4.google.com",
    "ocsp.digicert.com",
    "registry-1.docker.io",
    "gateway.icloud.com",
    "xn--bcher-kva.example",
    "ip-10-16-4-7.eu-central-1.compute.internal",
    "a8f5f167f44f4964e6c998dee827110c.dga.example.net",
)
PORTS = (443, 443, 443, 443, 443, 443, 80, 80, 53, 22, 445, 3389, 8080, 8443, 5432, 993)
