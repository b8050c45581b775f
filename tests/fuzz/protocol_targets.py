"""Parsers of the protocol core."""

import hashlib
from collections.abc import Callable, Sequence

from fuzz import seeds
from fuzz.targets import Target
from greylag_protocols import encoding, invite, keys, log, membership, merkle, peers, plan
from greylag_protocols.errors import ConfigError, VerificationError
from greylag_protocols.masking import pair_key
from greylag_protocols.messages import Round, SignedBatch
from greylag_protocols.parsing import parse_coordinator_message, parse_firm_message
from greylag_protocols.proofs import parse_proof, verify_proof
from greylag_protocols.signing import (
    PAYLOAD_TYPE,
    Ed25519Signer,
    parse_statement,
    verify_statement,
)
from securesystemslib.dsse import Envelope

MEMBERSHIP = seeds.make_membership()
FIRM = seeds.FIRMS["firm-a"]
STATEMENTS_ONLY = (VerificationError,)


def _payload(envelope: bytes) -> bytes:
    """The statement in an envelope, as it was signed."""
    return Envelope.from_dict(encoding.parse_json(envelope)).payload


def sign_payload(payload: bytes, signer: Ed25519Signer) -> bytes:
    """An envelope in its one accepted form around any payload: the signature holds, whatever the
    payload says."""
    envelope = Envelope(payload, PAYLOAD_TYPE, {})
    envelope.sign(signer._signer)  # the signer itself signs only what it has formed
    return encoding.canonical_json(envelope.to_dict())


def _sealed(
    check: Callable[[bytes], object], signer: Ed25519Signer = FIRM
) -> Callable[[bytes], object]:
    """``check`` on an envelope that is signed anew around the input."""
    return lambda payload: check(sign_payload(payload, signer))


def _payloads(envelopes: Callable[[], Sequence[bytes]]) -> Callable[[], list[bytes]]:
    return lambda: [_payload(item) for item in envelopes()]


def _coordinator_message(data: bytes) -> object:
    """A message, and what a firm computes of it before it decides anything."""
    message = parse_coordinator_message(data)
    if isinstance(message, Round):
        attempt = message.attempt_under(bytes(32), origin="glass")
        attempt.context()
        for key in message.keys[:1]:
            pair_key(b"\x01" * 32, key, attempt.context())
        for envelope in message.batches:
            keys.claimed_firm(envelope)
    return message


def _firm_message(data: bytes) -> object:
    message = parse_firm_message(data)
    batch = getattr(message, "batch", None)
    if isinstance(batch, SignedBatch):
        merkle.root_of(keys.batch_leaves(batch.keys, 1))
    return message


def _membership(document: bytes) -> object:
    digest = membership.membership_digest(document)
    statement = seeds.LEAD.sign("membership/v1", seeds.CONSORTIUM, digest, {})
    signed = membership.SignedMembership(document=document, statement=statement)
    return signed.verify(
        seeds.LEAD.public_key, consortium=seeds.CONSORTIUM, now_s=float(seeds.NOW_S)
    )


def _follow(envelope: bytes) -> object:
    return log.ChainTip().follow(envelope, firm="firm-a", identity_key=FIRM.public_key)


def _batch(envelope: bytes) -> object:
    batch = keys.verify_batch(envelope, FIRM.public_key)
    public = seeds.make_batch().keys
    for attempt in (1, 3):
        batch.check_key(
            public[attempt - 1], keys.prove_batch(public, 1)[1][attempt - 1], attempt=attempt
        )
    return batch.facts.tip


def _peers(envelope: bytes) -> object:
    return peers.count_peers(
        [envelope],
        membership=MEMBERSHIP,
        firm="firm-a",
        nonce=seeds.NONCE,
        tip=log.ChainTip(seq=1, head=bytes(32)),
        head_at=lambda _: bytes(32),
        max_colluding=1,
    )


def _tlog_proof(data: bytes) -> object:
    return verify_proof(
        parse_proof(data),
        seeds.LOGGED[2],
        origin=seeds.CONSORTIUM,
        log_key=seeds.LEAD.public_key,
        cosigner_keys={name: signer.public_key for name, signer in seeds.FIRMS.items()},
    )


def _inclusion(data: bytes) -> None:
    if len(data) < 66:
        raise VerificationError("too short for a leaf and a root")
    merkle.verify_inclusion(
        data[2:34],
        index=data[0],
        size=data[1],
        root=data[34:66],
        proof=[data[at : at + 32] for at in range(66, len(data), 32)],
    )


def _text(data: bytes) -> str:
    """What a person pastes, or a program reads from a file, is text before it is parsed."""
    return data.decode("utf-8", "replace")


def _enrolment_request(data: bytes) -> object:
    request = invite.parse_request(data)
    request.check_proof()
    return request


def _enrolment_reply(data: bytes) -> object:
    reply = invite.parse_reply(data)
    return reply.membership.verify(
        bytes.fromhex(reply.lead_key), consortium=seeds.CONSORTIUM, now_s=float(seeds.NOW_S)
    )


def _wrapped_invite(body: bytes) -> object:
    """An invite whose checksum is right, whatever it holds."""
    check = encoding.tagged_hash("greylag/invite-checksum/v1", body)[: invite.CHECKSUM_BYTES]
    return invite.parse_invite(invite.PREFIX + invite._to_base64url(body + check))


def _plans() -> list[bytes]:
    return [text.encode() for text in seeds.PLANS.values()]


def _json_seeds() -> list[bytes]:
    return [
        *seeds.make_statements()[:3],
        seeds.make_terms()[0].encode(),
        b'[1e16,-0.0,9007199254740993,"\\ud83d\\ude00",null,true]',
    ]


def _terms() -> list[bytes]:
    return [terms.encode() for terms in seeds.make_terms()]


def _chain() -> list[bytes]:
    return seeds.make_chain().entries[:1]


TARGETS = (
    Target(
        name="json",
        parse=encoding.parse_json,
        seeds=_json_seeds,
        form="json",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="frame",
        parse=encoding.parse_frame,
        seeds=lambda: seeds.make_firm_messages() + seeds.make_coordinator_messages(),
        form="frame",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="coordinator-message",
        parse=_coordinator_message,
        seeds=seeds.make_coordinator_messages,
        form="frame",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="firm-message",
        parse=_firm_message,
        seeds=seeds.make_firm_messages,
        form="frame",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="envelope",
        parse=lambda data: verify_statement(data, FIRM.public_key, "acceptance/v1"),
        seeds=lambda: seeds.make_chain().entries[:1],
        form="json",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="statement",
        parse=_sealed(parse_statement),
        seeds=_payloads(seeds.make_statements),
        form="json",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="chain-entry",
        parse=_sealed(_follow),
        seeds=_payloads(_chain),
        form="json",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="key-batch",
        parse=_sealed(_batch),
        seeds=_payloads(lambda: [seeds.make_batch().statement]),
        form="json",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="peers-word",
        parse=_sealed(_peers, seeds.FIRMS["firm-b"]),
        seeds=_payloads(lambda: [seeds.make_seen()]),
        form="json",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="revocation",
        parse=_sealed(lambda data: membership.verify_revocation(data, MEMBERSHIP), seeds.RECOVERY),
        seeds=_payloads(lambda: [seeds.make_revocation()]),
        form="json",
        allowed=STATEMENTS_ONLY,
    ),
    Target(
        name="membership",
        parse=_membership,
        seeds=lambda: [MEMBERSHIP.encode()],
        form="json",
        allowed=(VerificationError, ConfigError),
    ),
    Target(name="inclusion-proof", parse=_inclusion, seeds=seeds.make_proofs),
    Target(
        name="tlog-proof",
        parse=_tlog_proof,
        seeds=seeds.make_tlog_proofs,
        allowed=(VerificationError,),
    ),
    Target(name="terms", parse=plan.parse_terms, seeds=_terms, form="json", timeout_s=30),
    Target(
        name="plan",
        parse=lambda data: plan.parse_plan(_text(data)),
        seeds=_plans,
        form="text",
        allowed=(ConfigError,),
    ),
    Target(
        name="invite",
        parse=lambda data: invite.parse_invite(_text(data)),
        seeds=lambda: [seeds.make_invite().encode().encode()],
        form="text",
        allowed=(ConfigError,),
    ),
    Target(
        name="invite-body",
        parse=_wrapped_invite,
        seeds=lambda: [encoding.canonical_json(seeds.make_invite())],
        form="json",
        allowed=(ConfigError,),
        max_bytes=3000,
    ),
    Target(
        name="enrolment-request",
        parse=_enrolment_request,
        seeds=lambda: [seeds.make_request().encode()],
        form="json",
    ),
    Target(
        name="enrolment-reply",
        parse=_enrolment_reply,
        seeds=lambda: [seeds.make_reply().encode()],
        form="json",
    ),
    Target(
        name="roster-key",
        parse=lambda data: pair_key(b"\x01" * 32, data, bytes(32)),
        seeds=lambda: [hashlib.sha256(bytes([at])).digest() for at in range(3)],
        allowed=STATEMENTS_ONLY,
        max_bytes=64,
    ),
)
