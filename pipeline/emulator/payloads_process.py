"""Events about processes and the code that they run."""

from __future__ import annotations

import hashlib

from pipeline.emulator.payloads_catalog import MODULES
from pipeline.emulator.payloads_endpoint import Draft, Endpoint, Process
from pipeline.emulator.payloads_programs import PROGRAMS
from pipeline.emulator.records import compact


def existing_process(host: Endpoint, now: int) -> Draft:
    return _process("EXISTING_PROCESS", host.start_root(now))


def new_process(host: Endpoint, now: int) -> Draft:
    if host.crowded:
        return terminate_process(host, now)
    return _process("NEW_PROCESS", host.start(now))


def _process(kind: str, process: Process) -> Draft:
    if process.parent is None:
        return kind, b"{%b}" % process.members, process.links, ""
    return kind, b'{%b,"PARENT":%b}' % (process.members, described(process.parent)), process.links, ""


def described(process: Process) -> bytes:
    """Return the object by which other events show a process."""
    origin = b'"PARENT_ATOM":"%b",' % process.parent.atom if process.parent else b""
    return b'{%b,%b"THIS_ATOM":"%b"}' % (process.members, origin, process.atom)


def terminate_process(host: Endpoint, now: int) -> Draft:
    if host.lonely:
        return new_process(host, now)
    process = host.end()
    payload = b'{%b,"PARENT_PROCESS_ID":%d,"PROCESS_ID":%d,"TIMESTAMP":%d,"USER_NAME":%b}' % (
        process.image.file,
        process.parent.pid if process.parent else 0,
        process.pid,
        now,
        process.user,
    )
    return "TERMINATE_PROCESS", payload, process.links, ""


def _signature(path: str, signer: str) -> bytes:
    signature: dict[str, object] = {"FILE_IS_SIGNED": 1 if signer else 0, "FILE_PATH": path}
    if signer:
        signature = {
            "CERT_CHAIN_STATUS": 124,
            "CERT_ISSUER": f"C=US, S=Washington, L=Redmond, O={signer}, CN={signer} Code Signing PCA 2021",
            "CERT_SUBJECT": f"C=US, S=Washington, L=Redmond, O={signer}, CN={signer}",
            "FILE_CERT_IS_VERIFIED_GLOBAL": 1,
            "FILE_CERT_IS_VERIFIED_LOCAL": 1,
            **signature,
        }
    return compact(signature)


def _identities(platform: str) -> list[bytes]:
    signer = {"windows": "Microsoft Corporation", "linux": "", "macos": "Apple Inc."}[platform]
    files = [(program.path, program.signer) for program in PROGRAMS[platform]] + [
        (path, signer) for path in MODULES[platform]
    ]
    return [
        b'"FILE_INFO":"%d.0.%d.1","FILE_PATH":%b,"ORIGINAL_FILE_NAME":%b,"SIGNATURE":%b'
        % (
            10 + number,
            19041 + number,
            compact(path),
            compact(path.replace("\\", "/").rpartition("/")[2]),
            _signature(path, signed_by),
        )
        for number, (path, signed_by) in enumerate(files)
    ]


_IDENTITIES = {platform: _identities(platform) for platform in PROGRAMS}


def code_identity(host: Endpoint, now: int) -> Draft:
    # Reported when a path is first seen with a hash: an update of a known file, so the hash is new.
    dice = host.dice
    process = host.process()
    hashes = dice.bits(544)
    payload = (
        b'{%b,"HASH":"%064x","HASH_MD5":"%032x","HASH_SHA1":"%040x","MEMORY_SIZE":%d,"PROCESS_ID":%d,"TIMESTAMP":%d}'
        % (
            dice.pick(_IDENTITIES[host.sensor.platform]),
            hashes & (1 << 256) - 1,
            hashes >> 256 & (1 << 128) - 1,
            hashes >> 384,
            4096 * dice.bits(12),
            process.pid,
            now,
        )
    )
    return "CODE_IDENTITY", payload, host.inside(process, now), ""


def _module(path: str) -> bytes:
    name = path.replace("\\", "/").rpartition("/")[2]
    sha256 = hashlib.sha256(path.encode()).hexdigest()
    return compact(
        {"FILE_IS_SIGNED": 1, "FILE_PATH": path, "HASH": sha256, "MEMORY_SIZE": 4096 * len(path), "MODULE_NAME": name}
    )[1:-1]


_MODULES = {platform: [_module(path) for path in paths] for platform, paths in MODULES.items()}


def module_load(host: Endpoint, now: int) -> Draft:
    process = host.process()
    payload = b'{"BASE_ADDRESS":%d,%b,"PROCESS_ID":%d,"TIMESTAMP":%d}' % (
        0x7FFB00000000 + (host.dice.bits(16) << 12),
        host.dice.pick(_MODULES[host.sensor.platform]),
        process.pid,
        now,
    )
    return "MODULE_LOAD", payload, host.inside(process, now), ""


def process_environment(host: Endpoint, now: int) -> Draft:
    process = host.process()
    user = process.user
    variables = [
        b'"LANG=en_US.UTF-8"',
        b'"PATH=/usr/local/bin:/usr/bin:/bin"',
        b'"USER=%b' % user[1:],
        b'"SHLVL=%d"' % host.dice.bits(2),
    ]
    payload = b'{"ENVIRONMENT_VARIABLES":[%b],"PROCESS_ID":%d}' % (b",".join(variables), process.pid)
    return "PROCESS_ENVIRONMENT", payload, host.inside(process, now), ""


def exec_oob(host: Endpoint, now: int) -> Draft:
    """A thread runs code that belongs to no loaded module."""
    process = host.process()
    frames = b",".join(b'"0x%x"' % (0x7F0000000000 + host.dice.bits(32)) for _ in range(3))
    payload = b'{"PROCESS":%b,"STACK_TRACE_FRAMES":[%b],"THREAD_ID":%d}' % (
        described(process),
        frames,
        host.dice.bits(14),
    )
    return "EXEC_OOB", payload, host.inside(process, now), ""


def _aimed(host: Endpoint, now: int) -> tuple[Process, Process, bytes]:
    """Return who acts, on whom, and the links of that."""
    actor, victim = host.process(), host.process()
    return actor, victim, b'%b,"target":"%b"' % (host.inside(actor, now), victim.atom)


def new_remote_thread(host: Endpoint, now: int) -> Draft:
    actor, victim, links = _aimed(host, now)
    payload = b'{"PARENT_PROCESS_ID":%d,"PROCESS_ID":%d,"SOURCE":%b,"TARGET":%b,"THREAD_ID":%d,"TIMESTAMP":%d}' % (
        actor.pid,
        victim.pid,
        described(actor),
        described(victim),
        host.dice.bits(14),
        now,
    )
    return "NEW_REMOTE_THREAD", payload, links, ""


def remote_process_handle(host: Endpoint, now: int) -> Draft:
    return "REMOTE_PROCESS_HANDLE", *_handle(host, now), ""


def _handle(host: Endpoint, now: int) -> tuple[bytes, bytes]:
    actor, victim, links = _aimed(host, now)
    payload = b'{"ACCESS_FLAGS":%d,"PARENT_PROCESS_ID":%d,"PROCESS_ID":%d,"SOURCE":%b,"TARGET":%b}' % (
        host.dice.pick((2097151, 136208, 5136, 4112)),
        actor.pid,
        victim.pid,
        described(actor),
        described(victim),
    )
    return payload, links


def sensitive_process_access(host: Endpoint, now: int) -> Draft:
    return "SENSITIVE_PROCESS_ACCESS", *_assembled(host, now), ""


def thread_injection(host: Endpoint, now: int) -> Draft:
    return "THREAD_INJECTION", *_assembled(host, now), ""


def _assembled(host: Endpoint, now: int) -> tuple[bytes, bytes]:
    """An event that the cloud makes out of others, which it holds whole."""
    payload, links = _handle(host, now)
    part = (
        b'{"event":%b,"routing":{"event_id":"%b","event_time":%d,"event_type":"REMOTE_PROCESS_HANDLE","hostname":%b,%b}}'
        % (
            payload,
            host.dice.uuid().encode(),
            now,
            host.hostname,
            links,
        )
    )
    return b'{"EVENTS":[%b]}' % part, links
