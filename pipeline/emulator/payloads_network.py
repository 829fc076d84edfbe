"""Events about connections and names; on an endpoint each carries the atom of the live process that it is about."""

from __future__ import annotations

from pipeline.emulator.payloads_catalog import DOMAINS, PORTS
from pipeline.emulator.payloads_endpoint import Draft, Endpoint, Process, Renderer
from pipeline.emulator.payloads_process import described
from pipeline.emulator.records import compact

_DOMAINS = [compact(domain) for domain in DOMAINS]
# Documentation and private ranges: nothing that a generated record names is anyone's.
_REMOTE = [
    b'"%b"' % prefix for prefix in (b"198.51.100.%d", b"203.0.113.%d", b"192.0.2.%d", b"10.16.0.%d", b"172.16.223.%d")
]


def _remote(host: Endpoint) -> bytes:
    return host.dice.pick(_REMOTE) % host.dice.bits(8)


def dns_request(host: Endpoint, now: int) -> Draft:
    dice = host.dice
    answer = dice.bits(28)
    common = (_asked(host), answer & 0xFFFF, now)
    if answer >> 26:
        payload = b'{"DNS_FLAGS":0,"DNS_TYPE":1,"DOMAIN_NAME":%b,"IP_ADDRESS":%b,"MESSAGE_ID":%d,"TIMESTAMP":%d' % (
            common[0],
            _remote(host),
            *common[1:],
        )
    else:
        payload = b'{"CNAME":%b,"DNS_FLAGS":0,"DNS_TYPE":5,"DOMAIN_NAME":%b,"MESSAGE_ID":%d,"TIMESTAMP":%d' % (
            dice.pick(_DOMAINS),
            *common,
        )
    if not host.processes:  # a browser extension sees no processes
        return "DNS_REQUEST", payload + b"}", b'"this":"%b"' % host.atom(now), ""
    process = host.process()
    return "DNS_REQUEST", b'%b,"PROCESS_ID":%d}' % (payload, process.pid), process.links, ""


def _asked(host: Endpoint) -> bytes:
    dice = host.dice
    if dice.random() < 0.5:
        return dice.pick(_DOMAINS)
    return b'"h%05x.%b' % (dice.bits(20), dice.pick(_DOMAINS)[1:])


def network_connections(host: Endpoint, now: int) -> Draft:
    process = host.process()
    count = 1 + host.dice.bits(3)
    if not host.dice.bits(9):
        count *= 40  # a busy server reports long lists at once
    activity = b",".join([_connection(host, process, now) for _ in range(count)])
    parent = b',"PARENT":%b' % described(process.parent) if process.parent else b""
    return (
        "NETWORK_CONNECTIONS",
        b'{%b,"NETWORK_ACTIVITY":[%b]%b}' % (process.members, activity, parent),
        process.links,
        "",
    )


def _connection(host: Endpoint, process: Process, now: int) -> bytes:
    noise = host.dice.bits(32)
    return (
        b'{"DESTINATION":{"IP_ADDRESS":%b,"PORT":%d},"IS_OUTGOING":%d,"PROCESS_ID":%d,"PROTOCOL":"tcp4",'
        b'"SOURCE":{"IP_ADDRESS":"%b","PORT":%d},"STATE":%d,"TIMESTAMP":%d}'
        % (
            _remote(host),
            PORTS[noise & 15],
            noise >> 31,
            process.pid,
            host.sensor.int_ip.encode(),
            49152 + (noise >> 4 & 0x3FFF),
            1 + (noise >> 18 & 7),
            now - (noise >> 21 & 0x3FF),
        )
    )


def network_summary(host: Endpoint, now: int) -> Draft:
    process = host.process()
    activity = b",".join([_connection(host, process, now) for _ in range(2 + host.dice.bits(4))])
    payload = b'{"NETWORK_ACTIVITY":[%b],"PROCESS":%b}' % (activity, described(process))
    return "NETWORK_SUMMARY", payload, process.links, ""


def _tcp(kind: str, family: bytes) -> Renderer:
    def render(host: Endpoint, now: int) -> Draft:
        process = host.process()
        noise = host.dice.bits(30)
        if family == b"4":
            source, destination = b'"%b"' % host.sensor.int_ip.encode(), _remote(host)
        else:
            source, destination = b'"fe80::%x"' % (noise >> 14), b'"2001:db8::%x:%x"' % (noise >> 14, noise & 0xFFFF)
        payload = (
            b'{"DESTINATION":{"IP_ADDRESS":%b,"PORT":%d},"PROCESS_ID":%d,"SOURCE":{"IP_ADDRESS":%b,"PORT":%d},"STATE":%d,"TIMESTAMP":%d}'
            % (destination, PORTS[noise & 15], process.pid, source, 49152 + (noise >> 4 & 0x3FFF), 5, now)
        )
        return kind, payload, process.links, ""

    return render


def _udp(kind: str, address: bytes) -> Renderer:
    def render(host: Endpoint, now: int) -> Draft:
        process = host.process()
        payload = b'{"IP_ADDRESS":%b,"PORT":%d,"PROCESS_ID":%d,"TIMESTAMP":%d}' % (
            address or b'"%b"' % host.sensor.int_ip.encode(),
            49152 + host.dice.bits(13),
            process.pid,
            now,
        )
        return kind, payload, process.links, ""

    return render


new_tcp4_connection = _tcp("NEW_TCP4_CONNECTION", b"4")
new_tcp6_connection = _tcp("NEW_TCP6_CONNECTION", b"6")
terminate_tcp4_connection = _tcp("TERMINATE_TCP4_CONNECTION", b"4")
new_udp4_connection = _udp("NEW_UDP4_CONNECTION", b"")
new_udp6_connection = _udp("NEW_UDP6_CONNECTION", b'"fe80::1"')


_URLS = [compact(f"https://{domain}/log?authuser=0&hasfast=true&id=")[:-1] for domain in DOMAINS]
_AGENT = b'{"NAME":"User-Agent","VALUE":"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 Chrome/126.0.0.0 Safari/537.36"}'


def http_request(host: Endpoint, now: int) -> Draft:
    dice = host.dice
    result = dice.pick((200, 200, 200, 204, 304, 404, 502))
    payload = b'{"IP_ADDRESS":%b,"PARENT":{"URL":%b"},"RESULT":%d,"URL":%b%032x"}' % (
        _remote(host),
        dice.pick(_URLS),
        result,
        dice.pick(_URLS),
        dice.bits(128),
    )
    return "HTTP_REQUEST", payload, b'"this":"%b"' % host.atom(now), ""


def http_request_headers(host: Endpoint, now: int) -> Draft:
    payload = b'{"HEADERS":[%b,{"NAME":"X-Request-Id","VALUE":"%032x"}]}' % (_AGENT, host.dice.bits(128))
    return "HTTP_REQUEST_HEADERS", payload, b'"this":"%b"' % host.atom(now), ""


def http_response_headers(host: Endpoint, now: int) -> Draft:
    payload = b'{"HEADERS":[{"NAME":"content-length","VALUE":"%d"},{"NAME":"etag","VALUE":"\\"%x\\""}]}' % (
        host.dice.bits(16),
        host.dice.bits(64),
    )
    return "HTTP_RESPONSE_HEADERS", payload, b'"this":"%b"' % host.atom(now), ""
