"""UNIX sockets."""

import stat

from pipeline.kit import unix


def test_a_path_of_any_length(tmp_path):
    """A path that is longer than an address may be works all the same, and only its user may connect."""
    for folder in (tmp_path, tmp_path / ("x" * 200) / ("y" * 50)):
        folder.mkdir(exist_ok=True, parents=True)
        path = folder / "a.sock"
        path.write_text("left over")
        with unix.listen(path) as server, unix.connect(path, 1.0) as client:
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            client.send(b"x")
            server.setblocking(True)
            with server.accept()[0] as peer:
                assert peer.recv(1) == b"x"
