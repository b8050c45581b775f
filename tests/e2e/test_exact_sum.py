"""The promise under everything: through real TLS, gRPC and masks, the coordinator's integers are
exactly the sum of what the firms put in, and nothing less than the sum is readable."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from consortium_in_memory import Consortium, make_terms, run_on
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from greylag_client.app import answer_frame, make_client_app, make_context
from greylag_client.firm import TlsCredentials
from greylag_client.link import keep_connected
from greylag_protocols import log
from greylag_protocols.messages import Contribution, Round
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.signing import parse_statement
from greylag_server.authority import CertificateAuthority, encode_private, make_tls_key
from greylag_server.grid_grpc import GrpcGrid

pytestmark = pytest.mark.e2e


class Wire:
    """A grid and one agent thread per firm; what firms sent is written down as it left."""

    def __init__(self, consortium: Consortium) -> None:
        self.sent: dict[tuple[str, int], np.ndarray] = {}
        self._stop = threading.Event()
        self._authority = CertificateAuthority.create("glass", now_s=time.time())
        key = make_tls_key()
        certificate = self._authority.issue_server(
            key.public_key(), host="127.0.0.1", now_s=time.time()
        )
        self.grid = GrpcGrid(
            "127.0.0.1:0",
            ca=self._authority.certificate_pem,
            key=encode_private(key),
            certificate=certificate.public_bytes(Encoding.PEM),
            max_frame_bytes=1 << 20,
        )
        self._threads = [
            threading.Thread(target=self._serve, args=(consortium, name), name=name)
            for name in consortium.firms
        ]
        for thread in self._threads:
            thread.start()

    def _credentials(self, firm: str) -> TlsCredentials:
        key = make_tls_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, firm)])
        csr = x509.CertificateSigningRequestBuilder().subject_name(subject)
        pem = csr.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        certificate = self._authority.sign_firm(pem, firm=firm, now_s=time.time())
        return TlsCredentials(
            ca=self._authority.certificate_pem,
            key=encode_private(key),
            certificate=certificate.public_bytes(Encoding.PEM),
        )

    def _serve(self, consortium: Consortium, name: str) -> None:
        app = make_client_app(consortium.firms[name].participant)
        context = make_context()

        def answer(frame: bytes) -> bytes:
            train = isinstance(parse_coordinator_message(frame), Round)
            reply = answer_frame(app, context, frame, train=train)
            message = parse_firm_message(reply)
            if isinstance(message, Contribution):
                self.sent[name, message.attempt] = message.vector
            return reply

        address = f"127.0.0.1:{self.grid.port}"
        keep_connected(address, self._credentials(name), answer, self._stop)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self.grid.stop()


def test_three_rounds_over_grpc_add_up_to_the_integer(tmp_path: Path) -> None:
    consortium = Consortium(tmp_path, terms=make_terms(rounds=3, max_attempts=4))
    store, sums = consortium.open_store(), []
    coordinator = consortium.coordinator(store, watch_sum=lambda item: sums.append(item.copy()))
    wire = Wire(consortium)
    try:
        run_on(wire.grid, coordinator)
    finally:
        wire.close()
    assert (coordinator.status, coordinator.rounds_done) == ("done", 3)
    assert coordinator.settled
    parsed = [parse_statement(envelope) for envelope in store.entries()]
    rounds = [item for item in parsed if item.kind == log.ROUND_KIND]
    assert len(sums) == len(rounds) == 3
    for statement, total in zip(rounds, sums, strict=True):
        attempt = statement.predicate["attempt"]
        put_in = {
            name: firm.masks.put_in[statement.digest] for name, firm in consortium.firms.items()
        }
        expected = np.sum(np.stack(list(put_in.values())).astype(np.int64), axis=0)
        np.testing.assert_array_equal(total, expected)
        sent = {name: wire.sent[name, attempt] for name in put_in}
        for name, vector in sent.items():
            assert not np.any(vector.view(np.int32) == put_in[name])
        # The sum over all but one firm is no sum at all.
        partial = sum(vector for name, vector in sent.items() if name != "firm-a")
        assert np.abs(partial.view(np.int32).astype(np.float64)).max() > 2**28
    store.close()
