"""A relay for one TCP connection after the other that counts what passes, as the wire sees it."""

import contextlib
import socket
import threading

PIECE_BYTES = 1 << 18


class Relay:
    """Listens on a free port of 127.0.0.1 and passes everything on to ``target``."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._up = self._down = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def counts(self) -> tuple[int, int]:
        """Bytes so far, to the target and from it."""
        return self._up, self._down

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                firm, _ = self._listener.accept()
                target = socket.create_connection(self._target)
                for source, sink, up in ((firm, target, True), (target, firm, False)):
                    threading.Thread(
                        target=self._pass_on, args=(source, sink, up), daemon=True
                    ).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, up: bool) -> None:
        with contextlib.suppress(OSError):  # either side hung up
            while piece := source.recv(PIECE_BYTES):
                if up:
                    self._up += len(piece)
                else:
                    self._down += len(piece)
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
