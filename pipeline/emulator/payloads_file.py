"""Events about files, volumes and people at the machine."""

from __future__ import annotations

from pipeline.emulator.payloads_endpoint import Draft, Endpoint, Renderer, linked
from pipeline.emulator.payloads_process import described


def _touched(kind: str, *, hashed: bool = False) -> Renderer:
    def render(host: Endpoint, now: int) -> Draft:
        process = host.process()
        content = b'"HASH":"%b",' % host.dice.sha256() if hashed else b""
        payload = b'{"FILE_PATH":%b,%b"PROCESS_ID":%d,"TIMESTAMP":%d}' % (host.file(), content, process.pid, now)
        return kind, payload, host.inside(process, now), ""

    return render


file_create = _touched("FILE_CREATE")
file_delete = _touched("FILE_DELETE")
file_modified = _touched("FILE_MODIFIED", hashed=True)
new_document = _touched("NEW_DOCUMENT", hashed=True)


def file_type_accessed(host: Endpoint, now: int) -> Draft:
    process = host.process()
    rule = host.dice.pick((1, 2, 3, 4, 5, 50, 51))
    payload = b'{%b,"PROCESS_ID":%d,"RULE_NAME":%d,"TIMESTAMP":%d}' % (process.image.file, process.pid, rule, now)
    return "FILE_TYPE_ACCESSED", payload, host.inside(process, now), ""


def fim_hit(host: Endpoint, now: int) -> Draft:
    process = host.process()
    payload = b'{"FILE_PATH":%b,"PROCESS":%b,"PROCESS_ID":%d}' % (host.file(), described(process), process.pid)
    return "FIM_HIT", payload, host.inside(process, now), ""


def yara_detection(host: Endpoint, now: int) -> Draft:
    process = host.process()
    rule = host.dice.pick((b"packed_upx", b"webshell_generic", b"coinminer_strings", b"cobalt_beacon_config"))
    payload = b'{%b,"PROCESS":%b,"PROCESS_ID":%d,"RULE_NAME":"%b"}' % (
        process.image.file,
        described(process),
        process.pid,
        rule,
    )
    return "YARA_DETECTION", payload, host.inside(process, now), ""


def volume_mount(host: Endpoint, now: int) -> Draft:
    number = host.dice.bits(4)
    if host.sensor.platform == "windows":
        payload = b'{"DEVICE_NAME":"\\\\Device\\\\HarddiskVolume%d","VOLUME_PATH":"%c:"}' % (number, 69 + number)
    else:
        payload = b'{"VOLUME_NAME":"/dev/disk%ds1","VOLUME_PATH":"/Volumes/RECOVERY"}' % number
    return "VOLUME_MOUNT", payload, linked(b"", host.atom(now)), ""


def volume_unmount(host: Endpoint, now: int) -> Draft:
    return "VOLUME_UNMOUNT", *volume_mount(host, now)[1:]


def _person(kind: str) -> Renderer:
    def render(host: Endpoint, now: int) -> Draft:
        payload = b'{"TIMESTAMP":%d,"USER_NAME":%b}' % (now, host.dice.pick(host.users))
        return kind, payload, linked(b"", host.atom(now)), ""

    return render


user_observed = _person("USER_OBSERVED")
ssh_login = _person("SSH_LOGIN")
ssh_logout = _person("SSH_LOGOUT")
