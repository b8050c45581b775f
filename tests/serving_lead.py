"""A lead with releases in its log and firms that joined: for those who ask for predictions."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from certificates import issue_firm
from cryptography import x509
from enrolling_lead import Lead
from greylag_client.firm import TlsCredentials
from greylag_protocols.invite import spki_pin
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.releases import sign_release
from greylag_protocols.terms import Terms
from greylag_server.enrolment_store import EnrolmentFile, add_certificate
from greylag_server.release.artefacts import Licence, make_draft, make_model, write_release
from greylag_server.release.signing import signing_key
from greylag_server.service import open_store
from made_release import PLAN, make_record

FIRMS = ("anna", "berta")


@dataclass(frozen=True)
class ServingLead:
    """A consortium's directory, the firms' credentials, and releases beside it."""

    lead: Lead
    root: Path
    tls: dict[str, TlsCredentials]

    @property
    def directory(self) -> Path:
        return self.lead.consortium.root

    def release(
        self, *, plan: str = PLAN, seed: int = 3, version: int = 1, days: int = 30
    ) -> tuple[Path, Terms]:
        """Release a model of random weights as this version, and log it."""
        consortium, now_s = self.lead.consortium, int(time.time())
        run = f"{parse_plan(plan).run.name}-{version}"
        name = consortium.settings.id
        terms = settle_terms(parse_plan(plan), consortium=name, run_id=run)
        record = make_record(terms, seed=seed)
        assert record.state is not None
        key_path, public_key = signing_key(consortium.root / "keys")
        licence = Licence(
            text="for members",
            permitted_uses=("predictions",),
            issued_s=now_s - 86_400 * 2,
            expires_s=now_s + 86_400 * days,
        )
        draft = make_draft(
            record,
            make_model(record, record.state),
            consortium=name,
            version=version,
            firms=4,
            licence=licence,
            public_key=public_key,
            cosigners=2,
            holdout=None,
            because="",
        )
        entry = sign_release(consortium.signer, run, draft.model, draft.facts)
        store = open_store(consortium)
        with store.transaction():
            store.append([entry])
        store.close()
        out = self.root / f"v{version}"
        write_release(out, draft, entry=entry, proof=b"not looked at", private_key=key_path)
        return out, terms


@contextmanager
def serving_lead(root: Path) -> Iterator[ServingLead]:
    """A lead whose firms have certificates, without a server for joining."""
    lead = Lead(root / "lead", time.time())
    consortium = lead.consortium
    file = EnrolmentFile(consortium.enrolment_path)
    tls = {}
    for name in FIRMS:
        tls[name] = issue_firm(consortium.authority, name)
        certificate = x509.load_pem_x509_certificate(tls[name].certificate)
        with file.transaction() as db:
            db.execute(
                "INSERT INTO members VALUES (?, ?, ?, ?, ?)",
                (name, name, spki_pin(certificate), "00", int(time.time())),
            )
            add_certificate(db, name, certificate, tls[name].certificate.decode(), b"")
    yield ServingLead(lead, root, tls)


@contextmanager
def triton_client(port: int, tls: TlsCredentials, root: Path) -> Iterator[Any]:
    """NVIDIA's own client, under mutual TLS."""
    root.mkdir(parents=True, exist_ok=True)
    files = {}
    for name, content in (("ca", tls.ca), ("key", tls.key), ("certificate", tls.certificate)):
        files[name] = str(root / f"{name}.pem")
        Path(files[name]).write_bytes(content)
    with ExitStack() as stack:
        client = triton.InferenceServerClient(
            f"localhost:{port}",
            ssl=True,
            root_certificates=files["ca"],
            private_key=files["key"],
            certificate_chain=files["certificate"],
        )
        stack.callback(client.close)
        yield client


def ask(client: Any, name: str, rows: "np.ndarray[Any, Any]", **options: Any) -> Any:
    """Predictions for rows of all columns."""
    kind = "FP32" if rows.dtype == np.float32 else "FP64"
    tensor = triton.InferInput("features", list(rows.shape), kind)
    tensor.set_data_from_numpy(rows)
    return client.infer(name, [tensor], **options)
