"""Other programs that do these jobs: where they are, and how each is told to. Their configurations are in `peers/`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.corpus import KEEP, MARK
from benchmarks.flow.job import JOBS, Command, Job, Place, System

HERE = Path(__file__).parent / "peers"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lc-pipeline-bench"
PACKAGES = (
    *("rsyslog", "rsyslog-openssl", "rsyslog-kafka", "libestr0", "libfastjson4", "liblognorm5", "librdkafka1"),
    *("syslog-ng-core", "syslog-ng-mod-rdkafka", "libivykis0", "libnet1", "libwrap0", "libpcre3"),
)
TLS = frozenset(job.name for job in JOBS.values() if job.source == "tls")
TLS_FILES = frozenset(job.name for job in JOBS.values() if job.source == "tls" and job.sink == "file")
PATTERN = MARK.decode().replace('"', '\\"')


def fetch() -> dict[str, str]:
    """Bring what can be had: Debian's packages, unpacked and not installed, and Redpanda Connect's engine built from source.

    Return those of the others that are not here, and why.
    """
    daemons = {"rsyslog": CACHE / "root/usr/sbin/rsyslogd", "syslog-ng": CACHE / "root/usr/sbin/syslog-ng"}
    why = "no apt-get to fetch it with"
    if shutil.which("apt-get") and not all(daemon.exists() for daemon in daemons.values()):
        (CACHE / "debs").mkdir(parents=True, exist_ok=True)
        why = _run(["apt-get", "download", *PACKAGES], CACHE / "debs")
        for package in (CACHE / "debs").glob("*.deb"):
            why = _run(["dpkg", "-x", str(package), str(CACHE / "root")], CACHE) or why
    missing = {name: why or "not in its package" for name, daemon in daemons.items() if not daemon.exists()}
    engine = CACHE / "benthos" / "benthos"
    failed = "no Go to build it with"
    if shutil.which("go") and not engine.exists():
        print("Building Redpanda Connect's engine; minutes, once.")
        shutil.copytree(HERE / "benthos", CACHE / "benthos", dirs_exist_ok=True)
        failed = _run(["go", "mod", "tidy"], CACHE / "benthos") or _run(
            ["go", "build", "-o", "benthos", "."], CACHE / "benthos"
        )
    if not engine.exists():
        missing["Redpanda Connect"] = failed
    programs = {"Vector": "vector", "Fluent Bit": "fluent-bit"}
    return missing | {
        name: f"no {program} on the PATH" for name, program in programs.items() if shutil.which(program) is None
    }


def _run(command: list[str], folder: Path) -> str:
    """Empty when it went well, else the end of what it said."""
    done = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr)[-500:] if done.returncode else ""


def _unpacked() -> tuple[Path, Mapping[str, str]]:
    root = CACHE / "root"
    libraries = [root / "usr/lib/x86_64-linux-gnu", root / "lib/x86_64-linux-gnu", root / "usr/lib/syslog-ng"]
    return root, {"LD_LIBRARY_PATH": ":".join(map(str, libraries))}


def _write(name: str, place: Place, **more: str) -> Path:
    path = place.folder / name
    path.write_text((HERE / name).read_text().format(**place.texts, **more))
    return path


def rsyslog(job: Job, place: Place) -> Command:
    root, environment = _unpacked()
    modules, parse, condition = [], "", ""
    if job.decide == "json":
        modules.append('module(load="mmjsonparse")')
        parse = 'action(type="mmjsonparse" cookie="" useRawMsg="on")'
        condition = f'if $!routing!event_type == "{KEEP}" then'
    elif job.decide == "bytes":
        condition = f'if $rawmsg contains "{PATTERN}" then'
    if job.sink == "file":
        target = f'type="omfile" file="{place.output}" template="line" ioBufferSize="256k"'
    else:
        modules.append('module(load="omkafka")')
        keyed = 'dynaKey="on" key="sensor"' if job.decide else ""
        target = (
            f'type="omkafka" broker="{place.bootstrap}" topic="{place.topic}" template="record" {keyed}'
            ' confParam=["acks=all", "enable.idempotence=true", "linger.ms=20", "batch.size=1000000",'
            ' "queue.buffering.max.messages=100000"]'
        )
    path = _write("rsyslog.conf", place, modules="\n".join(modules), parse=parse, condition=condition, target=target)
    library = root / "usr/lib/x86_64-linux-gnu/rsyslog"
    arguments = ["-n", "-f", str(path), "-i", str(place.folder / "pid"), "-M", str(library)]
    return [str(root / "usr/sbin/rsyslogd"), *arguments], environment


def syslog_ng(job: Job, place: Place) -> Command:
    root, environment = _unpacked()
    rules, steps = "", ""
    if job.decide == "json":
        rules = (
            'parser p_json { json-parser(prefix(".json.")); };\n'
            f'filter f_keep {{ "${{.json.routing.event_type}}" eq "{KEEP}" }};'
        )
        steps = "parser(p_json); filter(f_keep);"
    elif job.decide == "bytes":
        rules = f"filter f_keep {{ match('{MARK.decode()}' value(\"MESSAGE\") type(string) flags(substring)) }};"
        steps = "filter(f_keep);"
    if job.sink == "file":
        target = f'file("{place.output}" template("$MSG\\n"));'
    else:
        key = 'key("${.json.routing.sid}")' if job.decide else ""
        target = (
            f'kafka-c(bootstrap-servers("{place.bootstrap}") topic("{place.topic}") {key} message("$MSG") workers(2)'
            ' config(acks("all") enable.idempotence("true") linger.ms("20") batch.size("1000000"))'
            " flush-timeout-on-shutdown(20000));"
        )
    path = _write("syslog-ng.conf", place, rules=rules, steps=steps, target=target)
    folder = place.folder
    arguments = [
        *("-F", "--no-caps", "--worker-threads=2", f"--cfgfile={path}", f"--pidfile={folder / 'pid'}"),
        *(f"--persist-file={folder / 'persist'}", f"--control={folder / 'control'}"),
        f"--module-path={root / 'usr/lib/syslog-ng/3.38'}",
    ]
    return [str(root / "usr/sbin/syslog-ng"), *arguments], environment


def benthos(job: Job, place: Place) -> Command:
    conditions = {
        "json": f'this.routing.event_type != "{KEEP}"',
        "bytes": f"!content().contains({MARK.decode()!r})".replace("'", "`"),
    }
    keep = f"root = if {conditions.get(job.decide)} {{ deleted() }} else {{ content() }}"
    keep = keep.replace("`", '"').replace(f'("{MARK.decode()}")', f'("{PATTERN}")')
    processors = f"[{{mapping: '{keep}'}}]" if job.decide else "[]"
    path = _write("benthos.yaml", place, processors=processors)
    return [str(CACHE / "benthos" / "benthos"), "run", str(path)], {"GOMAXPROCS": "2"}


def vector(job: Job, place: Place) -> Command:
    conditions = {
        "json": f"condition: 'parse_json!(string!(.message)).routing.event_type == \"{KEEP}\"'",
        "bytes": f"condition: 'contains(string!(.message), s''{MARK.decode()}'')'",
        "": "condition: 'true'",
    }
    if job.sink == "file":
        sink, target = "file", f'path: "{place.output}", encoding: {{codec: text}}'
    else:
        sink = "kafka"
        target = f'bootstrap_servers: "{place.bootstrap}", topic: "{place.topic}", encoding: {{codec: text}}'
    if job.name == "json-kafka":
        # The key is a field of the event.
        transform = (
            "source: 'doc = parse_json!(string!(.message)); .sid = doc.routing.sid;"
            f' if doc.routing.event_type != "{KEEP}" {{ abort }}\', drop_on_abort: true'
        )
        path = _write(
            "vector.yaml", place, transform="remap", condition=transform, sink=sink, target=f"{target}, key_field: sid"
        )
    else:
        path = _write(
            "vector.yaml", place, transform="filter", condition=conditions[job.decide], sink=sink, target=target
        )
    return ["vector", "--threads", "2", "--quiet", "--config", str(path)], {}


def fluent_bit(job: Job, place: Place) -> Command:
    filters = f"[{{name: grep, match: '*', regex: \"$routing['event_type'] ^{KEEP}$\"}}]"
    if job.sink == "file":
        target = f"name: file, path: {place.folder}, file: {place.output.name}, format: plain"
    else:
        target = (
            f"name: kafka, brokers: {place.bootstrap}, topics: {place.topic}, format: json,"
            " rdkafka.acks: all, rdkafka.enable.idempotence: true"
        )
    path = _write("fluent-bit.yaml", place, filters=filters, target=target)
    return ["fluent-bit", "-c", str(path)], {}


def _version(command: list[str], environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )
    found = re.search(r"\d+\.\d+[.\d]*", done.stdout + done.stderr)
    return found[0] if found else "unknown"


def systems() -> list[System]:
    """Those that are here."""
    found: list[System] = []

    def add(
        name: str, jobs: frozenset[str], command: Callable[[Job, Place], Command], version: str, **more: object
    ) -> None:
        found.append(System(name, jobs, command, version, **more))

    root, environment = _unpacked()
    if (daemon := root / "usr/sbin/rsyslogd").exists():
        add("rsyslog", TLS, rsyslog, _version([str(daemon), "-v"], environment))
    if (daemon := root / "usr/sbin/syslog-ng").exists():
        modules = f"--module-path={root / 'usr/lib/syslog-ng/3.38'}"
        add("syslog-ng", TLS, syslog_ng, _version([str(daemon), "-V", modules], environment).rpartition("3 (")[2])
    if (CACHE / "benthos" / "benthos").exists():
        wanted = re.search(r"benthos/v4 v([\d.]+)", (HERE / "benthos" / "go.mod").read_text())
        add("Redpanda Connect", TLS_FILES, benthos, f"engine {wanted[1] if wanted else 'unknown'}", part=4)
    if shutil.which("vector"):
        add("Vector", TLS, vector, _version(["vector", "--version"]))
    if shutil.which("fluent-bit"):
        # It decodes and encodes whatever it carries: more than a job asks for that decides by bytes, or not at all.
        jobs = frozenset({"json-file", "json-kafka"})
        add("Fluent Bit", jobs, fluent_bit, _version(["fluent-bit", "--version"]), recodes=True)
    return found
