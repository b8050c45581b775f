"""Who signed the log's states: the lead, and firms that countersigned with a time."""

from dataclasses import dataclass, field

from greylag_protocols.errors import VerificationError
from greylag_protocols.notes import (
    COSIGNATURE,
    SignedNote,
    key_id,
    verify_cosignature,
    verify_log_signature,
)
from greylag_protocols.trust import Trust

from greylag_audit.findings import Findings
from greylag_audit.members import Members


@dataclass(slots=True, kw_only=True)
class Witnesses:
    """What the signatures under a bundle's checkpoints come to.

    Attributes:
        times: by size of the checkpoint, when its cosigners saw it: (firm, Unix seconds).
    """

    findings: Findings
    members: Members
    trust: Trust | None
    times: dict[int, list[tuple[str, int]]] = field(default_factory=dict)

    def check_note(self, note: SignedNote) -> None:
        """The lead's signature, and every cosignature."""
        checkpoint = note.checkpoint
        if self.trust is not None:
            try:
                verify_log_signature(note, bytes.fromhex(self.trust.lead))
            except VerificationError as error:
                self.findings.broken("log.signature:forged", size=checkpoint.size, why=error)
        seen = self.times.setdefault(checkpoint.size, [])
        for signature in note.signatures:
            origin, _, firm = signature.name.rpartition("/")
            if origin != checkpoint.origin:
                continue  # the lead's own, or of a witness whom nobody here knows
            keys = [
                author.key
                for author in self.members.authors.values()
                if author.firm == firm
                and key_id(signature.name, COSIGNATURE, author.key) == signature.key_id
            ]
            if not keys:
                self.findings.add(
                    "unknown", "log.cosignatures:stranger", name=firm, size=checkpoint.size
                )
                continue
            try:
                seen.append((firm, verify_cosignature(checkpoint, signature.blob, keys[0])))
            except VerificationError as error:
                self.findings.broken(
                    "log.cosignatures:forged", firm=firm, size=checkpoint.size, why=error
                )

    def check_quorum(self, *, colluding: int, until: int, size: int) -> None:
        """Whether so many members countersigned a state with the entries before ``until`` that no
        other history can have as many: any two such groups share ``colluding`` + 1 firms, of
        which one is honest and signs one history only."""
        latest = self.members.latest
        names = set() if latest is None else {item.name for item in latest.membership.members}
        needed = (len(names) + colluding) // 2 + 1
        best, covered = 0, 0
        for at, seen in self.times.items():
            count = len({firm for firm, _ in seen} & names)
            if at >= until and (count >= needed, count, at) > (best >= needed, best, covered):
                best, covered = count, at
        enough = best >= needed
        self.findings.add(
            "holds" if enough else "unknown",
            "log.quorum:holds" if enough else "log.quorum:few",
            count=best,
            members=len(names),
            needed=needed,
            colluding=colluding,
            covered=covered,
            size=size,
        )

    def surely_after(self, *, colluding: int, time_s: int) -> int | None:
        """From which entry on, at the latest, the log was written after ``time_s``.

        Of ``colluding`` + 1 firms that countersigned at a later time, one is honest.
        """
        for size, seen in sorted(self.times.items()):
            if sum(when > time_s for _, when in seen) > colluding:
                return size
        return None
