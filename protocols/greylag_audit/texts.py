"""What an auditor reads. People who never saw a transparency log should understand every line.

``CHECKS`` lists the promises in the order in which they are told; the sentence under a check's own
name is what is said when it holds. Another language is another table beside ``ENGLISH``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A promise; ``always``: it holds unless something was found."""

    id: str
    evidence: Literal["proved", "signed claim", "cannot be checked"]
    always: bool = True


def _checks(
    evidence: Literal["proved", "signed claim", "cannot be checked"], names: str
) -> list[Check]:
    return [Check(id=name, evidence=evidence) for name in names.split()]


CHECKS: dict[str, Check] = {
    item.id: item
    for item in [
        *_checks(
            "proved",
            "bundle.files log.tree log.signature log.history entry.form entry.signature chain "
            "members.identity members.list members.gone terms.known terms.epsilon run.acceptance "
            "run.start roster.size roster.members roster.operators roster.retry roster.rejoin "
            "roster.out attempt.order attempt.limit receipt.match receipt.charge run.closed "
            "round.step sums release.follows",
        ),
        Check(id="log.quorum", evidence="proved", always=False),
        Check(id="ledger.agrees", evidence="proved", always=False),
        Check(id="replay.follows", evidence="proved", always=False),
        Check(id="usage.follows", evidence="proved", always=False),
        *_checks("signed claim", "log.cosignatures members.expired"),
        Check(id="members.consent", evidence="signed claim", always=False),
        *(
            Check(id=f"beyond.{name}", evidence="cannot be checked", always=False)
            for name in ("noise", "data", "context", "elsewhere", "holdout")
        ),
    ]
}

ENGLISH = {
    "more": "and {count} more of this kind",
    # -- the bundle and the log ------------------------------------------------------------------
    "bundle.files": "The bundle holds every file that its log refers to.",
    "bundle.files:missing": "{path} is missing from the bundle.",
    "bundle.files:damaged": "{path} is damaged: {why}.",
    "bundle.files:spare": "{path} belongs to nothing that the log names.",
    "bundle.files:run": "The bundle says that it is about run {run}, of which the log says "
    "nothing.",
    "log.tree": "The log is complete: its {size} entries lead, by hashes, to the one number that "
    "the lead signed. Changing, adding or dropping an entry would change that number.",
    "log.tree:leaf": "This entry is not the one that the log's own hashes were made of: it was "
    "changed after it was logged.",
    "log.tree:hash": "{path} does not follow from the log's entries.",
    "log.tree:root": "The log's entries do not lead to the number that was signed: entries were "
    "changed, added, dropped or put in another order.",
    "log.tree:missing": "The entries from here on are missing ({path}).",
    "log.signature": "The lead signed this state of the log.",
    "log.signature:origin": "The log is of {origin}; the keys that you trust are of {consortium}.",
    "log.signature:forged": "Checkpoint {size} is not signed with the lead's key: {why}.",
    "log.signature:unknown": "The log is signed by someone unknown: without --trust there is no "
    "key to check it with, and whoever made the bundle may have made up everything in it.",
    "log.history": "Every earlier state that was signed is the beginning of this log: nothing was "
    "rewritten or dropped since.",
    "log.history:forked": "What the lead signed at {size} entries is not the beginning of this "
    "log: there are two histories.",
    "log.history:longer": "The lead once signed {longer} entries; this log has only {size}: "
    "entries were dropped from its end.",
    "log.cosignatures": "Every firm's countersignature under the log is genuine.",
    "log.cosignatures:forged": "The countersignature under checkpoint {size} is not this firm's: "
    "{why}.",
    "log.cosignatures:stranger": "{name} countersigned checkpoint {size} but is no member.",
    "log.quorum:holds": "{count} of {members} firms countersigned the log's first {covered} of "
    "{size} entries, more than ({members} + {colluding}) / 2: even if {colluding} of them lie, no "
    "second, different log can have as many.",
    "log.quorum:few": "Only {count} of {members} firms countersigned this log as far as the run "
    "goes; {needed} are needed. So the lead may have shown others a different log. Compare its "
    "checkpoint with the firms'.",
    # -- entries ---------------------------------------------------------------------------------
    "entry.form": "Every entry is a signed statement of a known kind.",
    "entry.form:malformed": "This entry is no signed statement: {why}.",
    "entry.form:kind": "This entry is of an unknown kind, {kind}.",
    "entry.form:content": "This {kind} statement lacks what such a statement says: {why}.",
    "entry.signature": "Every entry is signed by the one whom it names.",
    "entry.signature:quick": "Every entry of the lead is signed; of each firm's statements the "
    "last one, which covers all before it (without --quick, each is checked on its own).",
    "entry.signature:forged": "This {kind} statement is not signed with its author's key.",
    "entry.signature:stranger": "This {kind} statement is signed with a key that no member list "
    "had named by then.",
    "chain": "Each firm numbered its statements without a gap, and each names the one before: "
    "none is missing, and none was put in.",
    "chain:gap": "Statement {found} of this firm follows statement {last}: some are missing, "
    "doubled or out of order.",
    "chain:forked": "Statement {found} of this firm does not name the one before it: the chain "
    "was cut or has two branches.",
    "chain:unsigned": "The last statement of this firm's chain is not signed with its key, so "
    "nothing before it counts either.",
    # -- members ---------------------------------------------------------------------------------
    "members.identity": "Every firm's key and operator are those that you trust.",
    "members.identity:unknown": "Signed by someone unknown: this firm's key is not among those "
    "that you trust.",
    "members.identity:nobody": "Signed by someone unknown: without --trust FILE no key is known "
    "to belong to anybody.",
    "members.identity:other": "The member list gives this firm another key than the one you trust.",
    "members.identity:operator": "The member list says that {found} runs this firm; you trust "
    "that {trusted} does.",
    "members.list": "The member lists are the lead's, each lasts 30 days at most, and no two "
    "share a number.",
    "members.list:invalid": "Member list {epoch} is not valid: {why}.",
    "members.list:twice": "There are two different member lists under number {epoch}.",
    "members.list:order": "Member list {epoch} comes after list {last}.",
    "members.consent:holds": "Member list {epoch}: endorsed by operators of firms ({count}) and by "
    "bodies that you trust ({bodies}). Every firm that accepted a run approved its list by its own "
    "rules.",
    "members.consent:forged": "This endorsement of a member list is not by the one whom it names.",
    "members.consent:stranger": "Somebody whom you do not know endorsed a member list; it does "
    "not count.",
    "members.gone": "No firm that left or was revoked spoke or took part afterwards.",
    "members.gone:spoke": "This firm {how} at entry {since}, yet speaks again here.",
    "members.gone:roster": "This firm {how} at entry {since}, yet stands in a roster.",
    "members.gone:forged": "This statement, that a firm is gone, is not signed by that firm: "
    "{why}.",
    "members.expired": "By the clocks of the firms that countersigned, no run went on under a "
    "member list that had run out.",
    "members.expired:used": "Run {run} went on under member list {epoch} after it had run out (by "
    "the clocks of the firms that countersigned).",
    # -- terms and runs --------------------------------------------------------------------------
    "terms.known": "The terms of every run are here, word for word as they were accepted.",
    "terms.known:missing": "The terms of run {run} are missing from the bundle.",
    "terms.known:other": "The terms of run {run} in the bundle are not those that were logged.",
    "terms.known:invalid": "The terms of run {run} break their own rules: {why}.",
    "terms.known:twice": "Terms for run {run} were logged before.",
    "terms.known:never": "Run {run} has no terms in the log.",
    "terms.epsilon": "Recomputed: the noise in the terms is enough for the epsilon that they "
    "promise.",
    "terms.epsilon:more": "The terms of run {run} promise epsilon {promised}, but {attempts} "
    "releases with that noise cost {cost}.",
    "run.acceptance": "Every firm accepted the terms before its first contribution.",
    "run.acceptance:late": "This firm contributed to run {run} before it had accepted its terms.",
    "run.acceptance:terms": "This firm accepted other terms for run {run} than were logged.",
    "run.acceptance:epoch": "This firm accepted run {run} under member list {epoch}, others under "
    "{expected}.",
    "run.acceptance:nolist": "This firm accepted run {run} under member list {epoch}, which was "
    "not in the log by then.",
    "run.acceptance:twice": "This firm accepted run {run} a second time.",
    "run.start": "The first weights follow from the terms and the acceptances: nobody chose them.",
    "run.start:twice": "Run {run} started twice.",
    "run.start:never": "Run {run} went on without a start.",
    "run.start:acceptances": "The start of run {run} does not count exactly the acceptances that "
    "were in the log by then.",
    "run.start:state": "The first weights of run {run} do not follow from its terms and "
    "acceptances.",
    "run.start:weights": "weights/initial is not what follows from the terms and acceptances.",
    "run.closed": "Nothing of a run followed in a firm's chain once it had closed that run.",
    "run.closed:after": "This firm closed run {run} at entry {since}, yet speaks of it again.",
    "run.closed:count": "This firm closed run {run} with {found} releases; its receipts are "
    "{count}.",
    "run.closed:terms": "This firm closed run {run} under other terms.",
    # -- rosters and attempts --------------------------------------------------------------------
    "roster.size": "No sum was taken over fewer firms than the terms allow.",
    "roster.size:small": "A sum over {count} firms in run {run}; the terms demand {least}.",
    "roster.members": "Every firm in a roster is on the member list of its run, and accepted it.",
    "roster.members:stranger": "This firm stands in a roster of run {run} but is not on its "
    "member list.",
    "roster.members:unaccepted": "This firm stands in a roster of run {run}, whose terms it had "
    "not accepted.",
    "roster.members:form": "The roster names a firm twice, or is not in order.",
    "roster.operators": "In no roster did the lead and one further operator run more firms than "
    "the noise is made for.",
    "roster.operators:many": "The lead and one operator run {count} firms of this roster; the "
    "noise of run {run} is made for {limit}.",
    "roster.retry": "Whenever a round was repeated, fewer firms took part.",
    "roster.retry:same": "Round {round} of run {run} was repeated with a roster that is not "
    "smaller.",
    "roster.rejoin": "Firms joined a roster only at the agreed rounds.",
    "roster.rejoin:early": "This firm joined the roster of run {run} at round {round}; firms may "
    "only at every {every}th.",
    "roster.out": "No firm that failed twice stood in a later roster.",
    "roster.out:back": "This firm failed {count} attempts of run {run} and is in a roster again.",
    "attempt.order": "Rounds and attempts go forwards; no attempt was used twice.",
    "attempt.order:attempt": "Attempt {attempt} of run {run} comes after attempt {last}.",
    "attempt.order:round": "Round {round} of run {run} comes when {done} rounds were done.",
    "attempt.order:reused": "This firm answered attempt {attempt} of run {run} after attempt "
    "{last}.",
    "attempt.order:restart": "The lead's program took run {run} up again at {found} (rounds, "
    "attempts); the log had {count}: it was set back, or part of the log is missing.",
    "attempt.order:over": "Run {run} goes on after its model was released at entry {since}.",
    "attempt.limit": "No run used more attempts than were accounted for.",
    "attempt.limit:passed": "Attempt {attempt} of run {run}; its terms account for {limit}.",
    "receipt.match": "Every firm in a sum has its own receipt for that very sum, and every "
    "receipt belongs to a logged attempt.",
    "receipt.match:missing": "This firm stands in the sum of round {round}, run {run}, without a "
    "receipt of its own.",
    "receipt.match:foreign": "This firm's receipt is for attempt {attempt} of run {run}, whose "
    "roster lacks it.",
    "receipt.match:context": "The receipt of this firm for attempt {attempt} of run {run} is for "
    "another roster, model or round than the lead's record.",
    "receipt.match:tip": "The lead's record of attempt {attempt}, run {run}, puts this firm's "
    "chain at statement {found}; the log has it at {count}, or with another content.",
    "receipt.match:lost": "This firm answered attempt {attempt} of run {run}; how that ended is "
    "not in the log.",
    "receipt.charge": "Every firm counted each of its releases, one by one.",
    "receipt.charge:count": "This firm's receipt counts {found} releases of run {run}; it should "
    "count {count}.",
    "receipt.charge:event": "This receipt charges {found}; the terms of run {run} are accounted "
    "as {expected}.",
    # -- the model -------------------------------------------------------------------------------
    "round.step": "Every round used the scale and accounting that its terms and roster lead to.",
    "round.step:grid": "Round {round} of run {run} was decoded on another scale than its roster "
    "leads to.",
    "round.step:event": "Round {round} of run {run} is accounted as {found}, not {expected}.",
    "sums": "The sums of all rounds are here, and are the ones that were logged.",
    "sums:missing": "The sum of round {round} is missing from the bundle.",
    "sums:other": "The sum of round {round} is not the one that was logged.",
    "release.follows": "What was released is what the log says came out of the last round.",
    "release.follows:never": "Run {run} has released nothing yet.",
    "release.follows:terms": "The release of run {run} names other terms.",
    "release.follows:rounds": "The release of run {run} counts {found}; the log has {count} "
    "(rounds, attempts).",
    "release.follows:state": "The release of run {run} does not follow from its last round.",
    "release.follows:name": "The release of run {run} names another plan than its terms.",
    "release.follows:versions": "The list of releases does not add up: {why}.",
    "release.follows:weights": "weights/released is not the model that was logged as released.",
    "usage.follows": "A firm's statements follow one another without gap or overlap.",
    "usage.follows:period": "The statement of {firm} does not begin where its last one ended.",
    "replay.follows:holds": "Replayed: {rounds} rounds of logged sums lead from the first weights "
    "to the released ones, bit by bit.",
    "replay.follows:unreleased": "Replayed: {rounds} rounds, each as it was logged; nothing has "
    "been released yet.",
    "replay.follows:model": "Round {round} was trained on another model than the rounds before it "
    "lead to.",
    "replay.follows:state": "Round {round} does not lead to the state that was logged after it.",
    "replay.follows:sum": "The sum of round {round} is missing, or is not the one that was logged.",
    "replay.follows:start": "The first weights do not follow from the terms and acceptances.",
    "replay.follows:released": "The released weights are not what the logged sums lead to.",
    # -- one firm's own books --------------------------------------------------------------------
    "ledger.agrees:holds": "Your own {count} statements are in the log, unchanged and without "
    "others between.",
    "ledger.agrees:other": "Statement {seq} in the log is not the one in the firm's own ledger.",
    "ledger.agrees:dropped": "The log lacks statement {seq} of the firm's own ledger, a {kind}.",
    "ledger.agrees:untold": "Statement {seq} of the firm's ledger ({kind}) had not reached this "
    "log.",
    "ledger.agrees:more": "The log holds statement {seq} of this firm, which its own ledger "
    "lacks: the ledger is an old copy, or somebody else signs with its key.",
    "ledger.agrees:broken": "The export of the ledger is itself no unbroken chain of this firm's: "
    "{why}.",
    # -- what nobody can check -------------------------------------------------------------------
    "beyond.noise": "That each firm really added its noise. (Its agent does; no outsider sees it.)",
    "beyond.data": "That firms' data are honest, and that the sums hold what the firms had.",
    "beyond.context": "That the one-time keys behind each receipt were the right ones. (Each firm "
    "checked that before it answered; the keys themselves are not in the log.)",
    "beyond.elsewhere": "That nobody spent privacy outside this log, or under another name.",
    "beyond.holdout": "Anything about the lead's private test data.",
}

TABLES = {"en": ENGLISH}


def render(message: str, facts: Mapping[str, str], lang: str = "en") -> str:
    """The sentence of a message, in ``lang`` where that has it, else in English."""
    table = TABLES.get(lang, ENGLISH)
    return table.get(message, ENGLISH[message]).format_map(_Lenient(facts))


class _Lenient(dict[str, str]):
    """A sentence is never lost for want of a fact."""

    def __missing__(self, key: str) -> str:
        return "?"
