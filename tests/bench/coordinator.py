"""The coordinator with 200 firms: CPU and memory of its process, bytes of one firm's connection.

Three processes on 127.0.0.1: the lead's, with the real GrpcGrid, Coordinator and SQLite store, and
two that run the firms' real participants behind mutual TLS. The masks cancel and every receipt is
signed and checked, or the run would not reach its last round.
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from consortium import firm_names, make_membership, make_terms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from greylag_protocols.keys import KEY_BYTES, MAX_BATCH
from greylag_server.authority import CertificateAuthority, encode_private, make_tls_key
from harness import Figure, say

FIRMS = 200
DIMENSION = 100_000
ROUNDS = 8
AGENT_PROCESSES = 2
HERE = Path(__file__).parent
TIMEOUT_S = 240.0


def measure_coordinator() -> list[Figure]:
    """Wire, CPU and memory."""
    say(f"coordinator, {FIRMS} firms, d = {DIMENSION:,}, {ROUNDS} rounds over mutual TLS")
    with tempfile.TemporaryDirectory(prefix="greylag-bench-") as name:
        root = Path(name)
        _write_consortium(root)
        lead, firm = _run(root)
    if lead["status"] != "done" or lead["rounds_done"] != ROUNDS or lead["attempts"] != ROUNDS:
        raise RuntimeError(f"the run did not go through: {lead}")
    where = {"firms": FIRMS, "d": DIMENSION}
    # The first rounds carry key batches (64 attempts are served by one) and warm everything up.
    per_firm_ms = [1000 * item / FIRMS for item in lead["round_cpu_s"]]
    return [
        *_wire(firm["rounds"], where),
        Figure(
            name="coordinator CPU per firm and round",
            where=where,
            value=statistics.median(per_firm_ms[2:]),
            unit="ms",
            bound=2.0,
            details={
                "rounds_ms": per_firm_ms,
                "start_ms": 1000 * lead["start_cpu_s"] / FIRMS,
                "round_wall_s": lead["round_wall_s"],
            },
        ),
        Figure(
            name="coordinator memory, peak",
            where=where,
            value=lead["peak_mb"],
            unit="MB",
            bound=500.0,
            details={"imports_mb": lead["imports_mb"]},
        ),
    ]


def _write_consortium(root: Path) -> None:
    terms = make_terms(firms=FIRMS, dimension=DIMENSION, rounds=ROUNDS, max_attempts=2 * MAX_BATCH)
    signed = make_membership(FIRMS)
    now_s = time.time()
    authority = CertificateAuthority.create(terms.consortium, now_s=now_s)
    key = make_tls_key()
    server = authority.issue_server(key.public_key(), host="127.0.0.1", now_s=now_s)
    files = {
        "terms.json": terms.encode(),
        "membership.json": signed.document,
        "membership.dsse": signed.statement,
        "ca.pem": authority.certificate_pem,
        "lead.key": encode_private(key),
        "lead.pem": server.public_bytes(Encoding.PEM),
    }
    for name in firm_names(FIRMS):
        key = make_tls_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        request = x509.CertificateSigningRequestBuilder().subject_name(subject)
        pem = request.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()
        certificate = authority.sign_firm(pem, firm=name, now_s=now_s)
        files[f"{name}.key"] = encode_private(key)
        files[f"{name}.pem"] = certificate.public_bytes(Encoding.PEM)
    for name, content in files.items():
        (root / name).write_bytes(content)


def _run(root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the lead's process measured, and the process with the counted connection."""
    processes: list[subprocess.Popen[str]] = []

    def start(script: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(HERE / script), str(root), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    try:
        lead = start("coordinator_process.py")
        line = lead.stdout.readline() if lead.stdout else ""
        port = json.loads(line)["port"]
        share = FIRMS // AGENT_PROCESSES
        agents = [
            start("agents_process.py", port, share * number, share)
            for number in range(AGENT_PROCESSES)
        ]
        measured = json.loads(lead.communicate(timeout=TIMEOUT_S)[0])
        counted = json.loads(agents[0].communicate(timeout=TIMEOUT_S)[0])
        for agent in agents[1:]:
            agent.communicate(timeout=TIMEOUT_S)
        return measured, counted
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _wire(rounds: list[dict[str, int]], where: dict[str, int]) -> list[Figure]:
    """Bytes of a round, from the counted connection: TLS, HTTP/2, gRPC and all.

    The counters are read when a round has come and its answer has not gone: the difference of two
    readings is the later round's request and the earlier one's answer.
    """
    steps = [
        (later["up"] - earlier["up"], later["down"] - earlier["down"])
        for earlier, later in itertools.pairwise(rounds)
        if not later["batches"]
    ]
    up, down = (int(statistics.median(step[side] for step in steps)) for side in (0, 1))
    vector = 4 * where["d"]
    own_batch = rounds[0]["batches"] // where["firms"] + KEY_BYTES * MAX_BATCH
    batches = (rounds[0]["batches"] + own_batch) / MAX_BATCH
    rest = up - vector + down - vector + batches
    return [
        Figure(
            name="wire: a vector, payload",
            where=where,
            value=vector / where["d"],
            unit="bytes/parameter",
            bound=4.0,
            details={"with_everything_else_up": up / where["d"]},
        ),
        Figure(
            name="wire: everything else of a round",
            where=where,
            value=rest / 1000,
            unit="kB/firm",
            bound=70.0,
            details={
                "down_bytes": down - vector,
                "up_bytes": up - vector,
                "key_batches_bytes_per_round": batches,
                "key_batches_bytes_once_in_64": rounds[0]["batches"] + own_batch,
            },
        ),
    ]
