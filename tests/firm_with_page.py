"""A firm that has joined over real TLS, whose ledger holds what the tests of its page need."""

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from consortium_in_memory import make_terms
from enrolling_lead import Lead, serving
from greylag_client.datasets import MAIN, Content
from greylag_client.firm import FirmDirectory
from greylag_client.ledger import Debit, Ledger
from greylag_client.page.source import House
from greylag_client.page.view import Connection
from greylag_client.policy import read_policy
from greylag_client.witness import Sight
from greylag_protocols import log
from greylag_protocols.accounting import POISSON_GAUSSIAN
from greylag_protocols.log import ChainTip
from greylag_protocols.membership import LIFETIME_S, Member, SignedMembership
from greylag_protocols.plan import parse_plan, settle_terms
from greylag_protocols.signing import Ed25519Signer
from greylag_protocols.terms import Terms, terms_digest

PLASTICS = (Path(__file__).parents[1] / "docs/examples/plastics.toml").read_text()


class Office:
    """One firm's directory and what happens to it.

    Attributes:
        connection: what the page is told of the agent; tests may change it.
    """

    def __init__(self, lead: Lead, root: Path) -> None:
        self.lead, self.root = lead, root
        self.firm = FirmDirectory.open(root)
        (self.approved,) = self.firm.approved()
        self.connection = Connection(state="connected")
        self.house = House(firm=self.firm, connection=lambda: self.connection)

    def allow_much(self) -> None:
        """Limits under which the small runs of the tests fit."""
        text = self.firm.policy_path.read_text()
        text = text.replace("lifetime_epsilon = 10.0", "lifetime_epsilon = 1000.0")
        self.firm.policy_path.write_text(
            text.replace("max_epsilon_per_run = 4.0", "max_epsilon_per_run = 400.0")
        )

    def accept(self, terms: Terms, *, charged: int = 0, close: bool = False) -> None:
        """A run that the firm accepted, and some rounds of it."""
        signer, name = self.firm.signer, self.firm.settings.firm
        encoded, roster = terms.encode(), ("firm-a", "firm-b", "firm-c", "firm-d")
        digest = terms_digest(encoded)
        policy = read_policy(self.firm.policy_path)
        with closing(_Closing(self.firm)) as opened:
            ledger = opened.ledger
            ledger.accept(
                terms,
                encoded,
                contents={MAIN: Content(commitment=bytes(32))},
                policy=policy,
                now_s=self.lead.now_s,
                sign=lambda tip: log.sign_acceptance(
                    signer, tip, firm=name, run=terms.run_id, terms=digest, epoch=1
                ),
            )
            for at in range(1, charged + 1):
                ledger.debit(
                    Debit(
                        run=terms.run_id, round_number=at, attempt=at, roster=roster, sight=Sight()
                    ),
                    policy=policy,
                    now_s=self.lead.now_s + at,
                    sign=lambda tip, at=at: log.sign_receipt(
                        signer,
                        tip,
                        firm=name,
                        run=terms.run_id,
                        round_number=at,
                        attempt=at,
                        context=bytes(32),
                        roster_size=len(roster),
                        event_type=POISSON_GAUSSIAN,
                        charged=at,
                    ),
                )
            if close:
                ledger.close_run(
                    terms.run_id,
                    sign=lambda tip: log.sign_closed(
                        signer, tip, firm=name, run=terms.run_id, terms=digest, charged=charged
                    ),
                )

    def refuse(self, run: str, refusal_class: str, reason: str, times: int = 1) -> None:
        """Something that the firm refused."""
        with closing(_Closing(self.firm)) as opened:
            for at in range(times):
                now_s = self.lead.now_s + at
                opened.ledger.refusals.note(run, refusal_class, reason, now_s=now_s)

    def see_peers(self, **seqs: int) -> None:
        """Ledgers of other firms that were seen."""
        with closing(_Closing(self.firm)) as opened:
            tips = {
                name.replace("_", "-"): ChainTip(seq=seq, head=bytes([seq] * 32))
                for name, seq in seqs.items()
            }
            opened.ledger.peers.note(tips)

    def newer_list(self, *names: str) -> str:
        """The lead shows a list with further firms on it. Its digest."""
        latest = self.firm.memberships.latest()
        added = tuple(
            Member(
                name=name,
                operator=name,
                identity=_public_key(name, 1).hex(),
                recovery=_public_key(name, 2).hex(),
            )
            for name in names
        )
        newer = replace(
            latest,
            epoch=latest.epoch + 1,
            issued_s=int(self.lead.now_s),
            expires_s=int(self.lead.now_s) + LIFETIME_S,
            members=tuple(sorted(latest.members + added, key=lambda item: item.name)),
        )
        signed = SignedMembership.sign(newer, self.lead.consortium.signer)
        return self.firm.store_seen(signed, now_s=self.lead.now_s).digest().hex()


def _public_key(name: str, number: int) -> bytes:
    return Ed25519Signer(hashlib.sha256(f"{name} {number}".encode()).digest()).public_key


class _Closing:
    def __init__(self, firm: FirmDirectory) -> None:
        self.ledger = Ledger(firm.ledger_path)

    def close(self) -> None:
        self.ledger.close_file()


def plastics_terms(consortium: str, run: str, purpose: str | None = None) -> Terms:
    """Terms as a real plan gives them."""
    text = PLASTICS
    if purpose is not None:
        start = text.index("purpose = ")
        text = text[:start] + f'purpose = "{purpose}"' + text[text.index("\n", start) :]
    return settle_terms(parse_plan(text), consortium=consortium, run_id=run)


def small_terms(consortium: str, run: str = "small-1") -> Terms:
    """Terms that are quickly made."""
    return make_terms(name=consortium, run=run)


@contextmanager
def office(root: Path, now_s: float) -> Iterator[Office]:
    """A firm, and the lead that it joined. The list of that day is approved."""
    with serving(root / "lead", now_s) as lead:
        joined = lead.join("firm-a", root / "firm-a")
        joined.firm.approve(joined.digest)
        yield Office(lead, root / "firm-a")
