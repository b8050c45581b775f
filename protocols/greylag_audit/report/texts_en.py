"""The report's sentences in English. ``{names}`` are filled in."""

ENGLISH = {
    "title": "Privacy report: {run}",
    "subtitle": "Run {run} of the consortium {origin}. Purpose: {purpose}.",
    "skip": "Skip to the report",
    "contents": "Contents",
    "holds": "kept",
    "broken": "broken",
    "unknown": "unknown",
    "verdict": "Result",
    "closing": "Made by greylag-audit from one bundle, whose log has {size} entries. The same "
    "bundle "
    "always gives the same report. {time}",
    "time": "The newest time in it: {count} firms countersigned the log, the last of them on "
    "{time} UTC by its own clock.",
    "time.none": "No firm countersigned the log, so that it holds no time.",
    "nothing": "no number",
    "none": "none",
    # -- the outcome -----------------------------------------------------------------------------
    "verdict.holds": "Every promise that can be checked was kept, by firms whose keys you trust.",
    "verdict.broken": "Promises were broken (places: {count}). Do not rely on this run until each "
    "of them is explained.",
    "verdict.unsigned": "The records agree with each other, but it is unknown who signed them: "
    "anybody could have made them up. Make this report again with a trust file of a firm or "
    "association that you know.",
    "verdict.strangers": "Nothing is broken, but some who signed are not in your trust file.",
    # -- in short --------------------------------------------------------------------------------
    "short": "In short",
    "short.firms": "firms in the run",
    "short.rounds": "rounds done, of {of}",
    "short.odds": "best guess of an attacker (50 % is a coin)",
    "short.epsilon": "epsilon of the whole run",
    "short.1": "{firms} firms trained one model together. By the method, data stay at the firm: "
    "each sent "
    "numbers that mean nothing alone, and only the sum over all firms of a round, with noise in "
    "it, could be read.",
    "short.2": "Suppose somebody knows everything but this: whether {unit} was in the data. A coin "
    "guesses that right 50 times in 100; with all that this run ever shows, the best guess is "
    "right at most {right} times in 100. That holds if the firms added their noise, which no "
    "outsider can check.",
    "short.doubt": "All numbers in this report come from the terms and the log. While the result "
    "above stands, do not rely on them.",
    "short.released": "A model was released. Its fingerprint: {digest}",
    "short.unreleased": "No model has been released yet.",
    "short.noterms": "The terms of the run are not in the bundle, or are not valid, so that "
    "nothing "
    "can be said of its cost.",
    # -- evidence --------------------------------------------------------------------------------
    "evidence": "What the evidence shows",
    "evidence.intro": "Evidence is of three kinds, and they are never mixed.",
    "evidence.broken": "What is broken",
    "evidence.broken.intro": "Each line names the entry of the log and the firm, where there is "
    "one.",
    "evidence.proved": "Proved",
    "evidence.proved.means": "Follows from signatures and hashes. Anyone can recompute it.",
    "evidence.claim": "Signed claims",
    "evidence.claim.means": "Somebody answers for it with a key, but it could be untrue.",
    "evidence.beyond": "Cannot be checked",
    "evidence.beyond.means": "No bundle can show it. Ask the firms, or trust them.",
    "place.entry": "entry {entry}",
    # -- odds ------------------------------------------------------------------------------------
    "odds": "How much could be found out?",
    "odds.1": "Picture 100 guesses, by somebody who saw all of this run, whether {unit} took part.",
    "odds.table": "The same question for more than one, and if firms collude",
    "odds.who": "What is guessed",
    "odds.percent": "Right at most, of 100",
    "odds.epsilon": "Epsilon",
    "odds.one": "whether {unit} took part",
    "odds.copies": "whether {count} equal ones took part",
    "odds.lone": "{unit}, if all other firms collude against its own",
    "odds.over": "no protection left",
    "odds.lone.note": "Firms that may collude without harm to the promise: {colluding}. If all "
    "others colluded, "
    "only the noise of the firm itself would count: the last line. The more firms take part, the "
    "smaller each one's own share of the noise.",
    "odds.firm": "A whole firm is what is protected here; copies inside it do not matter.",
    "odds.experts": "For experts",
    "experts.table": "The parameters",
    "experts.name": "Parameter",
    "experts.value": "Value",
    "experts.unit": "Unit; neighbours",
    "experts.unit.value": "{unit}; one added or removed",
    "experts.epsilon": "Epsilon of all attempts accounted for",
    "experts.used": "Epsilon of the attempts that took place",
    "experts.used.value": "{epsilon} ({count} attempts; a fact, not a bound)",
    "experts.delta": "Delta",
    "experts.sigma": "Noise multiplier sigma",
    "experts.clip": "Clipping norm C",
    "experts.rate": "Sampling rate q",
    "experts.batch": "Most units of a firm in a batch",
    "experts.attempts": "Attempts accounted for",
    "experts.rounds": "Rounds planned",
    "experts.noise": "Noise that counts",
    "experts.noise.value": "that of |R| - {colluding} firms of each roster R",
    "experts.event": "Mechanism",
    "experts.accountant": "Accountant",
    "experts.accountant.value": "privacy loss distributions (dp-accounting, pessimistic, interval "
    "0.001), refused unless at most Renyi DP; odds: total variation, delta at epsilon 0",
    "experts.terms": "SHA-256 of the terms",
    # -- firms -----------------------------------------------------------------------------------
    "firms": "What each firm spent",
    "firms.intro": "Epsilon is what privacy costs: the less, the better. A run is charged whole as "
    "soon as a firm has sent its first contribution, however it ends. Counted from the firms' own "
    "signed acceptances and receipts.",
    "firms.limit": "A firm's own limits, for a year or for ever, are its secret and are not in the "
    "bundle: its own program refuses what would pass them. Before: earlier runs in this log alone, "
    "for the same unit ({unit}).",
    "firms.table": "Epsilon by firm (at delta {delta} for each run)",
    "firms.firm": "Firm",
    "firms.operator": "Run by",
    "firms.cap": "Limit of this run",
    "firms.before": "Before",
    "firms.spent": "Spent",
    "firms.reserved": "Reserved",
    "firms.after": "After",
    "firms.releases": "Times contributed",
    "firms.state": "State",
    "state.closed": "closed for ever",
    "state.open": "open",
    "state.reserved": "reserved only",
    # -- course ----------------------------------------------------------------------------------
    "course": "How the run went",
    "course.1": "{attempts} attempts led to {rounds} rounds; {voids} failed because a firm did not "
    "answer. A failed attempt is charged too, and the next one has fewer firms.",
    # -- plots -----------------------------------------------------------------------------------
    "plot.dots": "Right at most {right} times in 100",
    "plot.dots.desc": "Grey: 50 guesses that are right by chance. Red: {more} more at most that "
    "are "
    "right because of this run. Pale: {wrong} that are still wrong.",
    "plot.spending": "Spent against the limit",
    "plot.spending.desc": "A bar for each of {count} firms; the numbers are in the table below.",
    "plot.more": "and {count} more firms, in the table",
    "plot.before": "spent before, in this log",
    "plot.spent": "spent by this run",
    "plot.left": "not spent",
    "plot.line": "The line: limit of this run",
    "plot.cumulative": "Privacy cost, attempt by attempt",
    "plot.cumulative.desc": "After {count} attempts (a dot each; hollow: failed, {voids} of them) "
    "epsilon "
    "is {reached}; the terms allow {limit}.",
    "plot.attempts": "attempt",
    "plot.epsilon": "epsilon",
    "plot.limit": "limit of the terms: {limit}",
    "plot.rosters": "Firms in each attempt",
    "plot.rosters.desc": "Between {smallest} and {largest} firms took part; the terms demand "
    "{least} "
    "at least.",
    "plot.firms": "firms",
    "plot.least": "fewest allowed: {least}",
    "plot.detection": "The best possible attack",
    "plot.detection.desc": "An attacker who is wrongly alarmed in 5 of 100 cases notices a unit "
    "that "
    "took part in at most {found} of 100. On the diagonal, the attacker only guesses.",
    "plot.alarms": "false alarms, %",
    "plot.detections": "units noticed, %",
    "plot.guessing": "pure guessing",
    "plot.attacker": "at most, with this run",
    # -- units -----------------------------------------------------------------------------------
    "unit.record": "one particular row",
    "unit.group": "all rows with one particular {group}",
    "unit.firm": "all data of one particular firm",
    "unit.name.record": "record",
    "unit.name.group": "group ({group})",
    "unit.name.firm": "firm",
}
