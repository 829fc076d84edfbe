"""A real Apache Kafka broker for tests and for people: ``python tests/kafka_broker.py`` starts one and says how to reach it.

Needs Java 17 or newer and Maven. The jars are fetched once and kept in ``.cache`` of the project; after that a broker answers
within seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POM = Path(__file__).parent / "kafka" / "pom.xml"
CACHE = Path(__file__).parent.parent / ".cache"

SCRAM_USER, SCRAM_PASSWORD = "alice", "alice-secret"
"""May log in by SCRAM-SHA-256 and SCRAM-SHA-512 on the SASL_SSL listener; may do nothing until a test grants it."""
PLAIN_USER, PLAIN_PASSWORD = "bob", "bob-secret"
"""May log in by PLAIN on the SASL_SSL listener; may do nothing until a test grants it."""

START_TIMEOUT = 60.0


class BrokerUnavailable(Exception):
    """A broker cannot be had here; the text names what is missing."""


def java() -> str:
    """Return the path of a Java that is new enough. Raises `BrokerUnavailable`."""
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=f"{home}/bin") if home else None
    path = path or shutil.which("java")
    if path is None:
        raise BrokerUnavailable("Java 17 or newer is missing (no java on the PATH)")
    told = subprocess.run([path, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < 17:
        raise BrokerUnavailable(
            f"Java 17 or newer is missing ({path} is {version[1] if version else 'of no known version'})"
        )
    return path


def jars() -> Path:
    """Return the folder with Kafka's jars, fetched with Maven on first use. Raises `BrokerUnavailable`."""
    folder = CACHE / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "kafka.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder
        maven = shutil.which("mvn")
        if maven is None:
            raise BrokerUnavailable("Maven is missing (no mvn on the PATH)")
        fresh = folder.with_suffix(".part")
        shutil.rmtree(fresh, ignore_errors=True)
        command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={fresh}"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        if done.returncode:
            raise BrokerUnavailable(f"Maven could not fetch Kafka: {(done.stdout + done.stderr).strip()[-500:]}")
        fresh.rename(folder)
    return folder


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """One Kafka process that is its own controller; its ports and its data outlive `stop` and `kill`.

    ``bootstrap`` is the plain listener, where everybody may do everything. With ``secure`` there is a SASL_SSL listener at
    ``secure_bootstrap`` whose certificate authority is the file ``ca``.
    """

    def __init__(self, folder: Path, *, port: int = 0, secure: bool = False) -> None:
        self.folder = folder
        self.secure = secure
        self.bootstrap = f"127.0.0.1:{port or _free_port()}"
        self.secure_bootstrap = f"127.0.0.1:{_free_port()}"
        self.ca = folder / "ca.pem"
        self._classpath = f"{jars()}/*"
        self._java = java()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self._configure()

    def _configure(self) -> None:
        controller = f"127.0.0.1:{_free_port()}"
        listeners = f"PLAINTEXT://{self.bootstrap}"
        lines = [
            "process.roles=broker,controller",
            "node.id=1",
            f"controller.quorum.voters=1@{controller}",
            "controller.listener.names=CONTROLLER",
            "inter.broker.listener.name=PLAINTEXT",
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT",
            f"log.dirs={self.folder / 'data'}",
            "offsets.topic.replication.factor=1",
            "offsets.topic.num.partitions=1",
            "transaction.state.log.replication.factor=1",
            "transaction.state.log.min.isr=1",
            "group.initial.rebalance.delay.ms=0",
            "broker.session.timeout.ms=1500",  # after a kill, a start waits for this long
            "broker.heartbeat.interval.ms=300",
            "log.retention.ms=-1",  # tests send records with times of their own choice
        ]
        scram = []
        if self.secure:
            self._certificates()
            listeners += f",SASL_SSL://{self.secure_bootstrap}"
            module = "org.apache.kafka.common.security"
            login = f'{module}.plain.PlainLoginModule required user_{PLAIN_USER}="{PLAIN_PASSWORD}";'
            lines += [
                "ssl.keystore.type=PEM",
                f"ssl.keystore.location={self.folder / 'keystore.pem'}",
                "ssl.truststore.type=PEM",
                f"ssl.truststore.location={self.ca}",
                "sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
                f"listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={module}.scram.ScramLoginModule required;",
                f"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={module}.scram.ScramLoginModule required;",
                f"listener.name.sasl_ssl.plain.sasl.jaas.config={login}",
                "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                "super.users=User:ANONYMOUS",
            ]
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                scram += ["--add-scram", f"{mechanism}=[name={SCRAM_USER},password={SCRAM_PASSWORD}]"]
        lines += [f"listeners={listeners},CONTROLLER://{controller}", f"advertised.listeners={listeners}"]
        self._properties = self.folder / "server.properties"
        self._properties.write_text("\n".join(lines) + "\n")
        if (self.folder / "data" / "meta.properties").exists():
            return
        cluster = self.tool("kafka.tools.StorageTool", "random-uuid").strip()
        self.tool("kafka.tools.StorageTool", "format", "-t", cluster, "-c", str(self._properties), *scram)

    def _certificates(self) -> None:
        import trustme  # only the secure listener needs it

        authority = trustme.CA()
        server = authority.issue_cert("127.0.0.1", "localhost")
        authority.cert_pem.write_to_path(self.ca)
        from cryptography.hazmat.primitives import serialization

        key = serialization.load_pem_private_key(server.private_key_pem.bytes(), password=None)
        pkcs8 = key.private_bytes(  # the one form that Kafka reads
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        chain = b"".join(blob.bytes() for blob in server.cert_chain_pems)
        (self.folder / "keystore.pem").write_bytes(pkcs8 + chain + authority.cert_pem.bytes())

    def tool(self, name: str, *arguments: str, stdin: str = "") -> str:
        """Run one of Kafka's own command lines by its class name and return what it printed."""
        command = [self._java, "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp", self._classpath, name, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, encoding="utf-8", timeout=60, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} failed: {(done.stdout + done.stderr).strip()[-1000:]}")
        return done.stdout

    def acl(self, action: str, user: str, operations: list[str], *resource: str) -> None:
        """``acl("--add", "alice", ["Write", "Describe"], "--topic", "lc.event")``; ``--remove`` takes it back."""
        names = [part for operation in operations for part in ("--operation", operation)]
        self.tool(
            *("org.apache.kafka.tools.AclCommand", "--bootstrap-server", self.bootstrap, "--force", action),
            *("--allow-principal", f"User:{user}", *names, *resource),
        )

    def start(self) -> None:
        """Start it and return when it answers. Raises `RuntimeError` with the end of its log when it does not."""
        if self._process is not None and self._process.poll() is None:
            return
        output = self.folder / "broker.log"
        with output.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._java, "-Xms256m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"),
                    *("-cp", self._classpath, "kafka.Kafka", str(self._properties)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop it
            )
        # it must not outlive us, even if we are killed: then this pipe ends
        guard = f"read -r _; kill -9 {self._process.pid}"
        self._guard = subprocess.Popen(["sh", "-c", guard], stdin=subprocess.PIPE, start_new_session=True)
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(self.bootstrap):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Kafka did not start: {output.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Shut it down in good order, as an operator would."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Let it hang: connections stay open, nothing answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # returns when all its threads have stopped

    def resume(self) -> None:
        """End a `pause`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        if self._guard is not None:
            self._guard.kill()
            self._guard.communicate()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def _answers(address: str) -> bool:
    """Whether a broker there answers a request (ApiVersions)."""
    host, port = address.rsplit(":", 1)
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=2) as connection:
        connection.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
        return len(connection.recv(4)) == 4
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Start a Kafka broker in the foreground; Ctrl-C ends it.")
    parser.add_argument("--port", type=int, default=9092, help="of the plain listener (default 9092)")
    parser.add_argument("--secure", action="store_true", help="add a SASL_SSL listener with users and no rights")
    parser.add_argument("--data", type=Path, help="folder for its data; default: one that is removed at the end")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.ExitStack() as stack:
        try:
            folder = arguments.data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kafka-")))
            broker = Broker(folder.resolve(), port=arguments.port, secure=arguments.secure)
            stack.callback(broker.stop)
            broker.start()
        except (BrokerUnavailable, RuntimeError) as error:
            sys.exit(str(error))
        print(f"Kafka listens on {broker.bootstrap}.", flush=True)
        if arguments.secure:
            print(f"SASL_SSL on {broker.secure_bootstrap}, ssl.ca.location: {broker.ca}")
            print(
                f"Users: {SCRAM_USER} / {SCRAM_PASSWORD} (SCRAM), {PLAIN_USER} / {PLAIN_PASSWORD} (PLAIN)", flush=True
            )
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
        print("Stopping.", flush=True)


if __name__ == "__main__":
    main()
