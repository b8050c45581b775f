"""Why something was refused, in a few kinds that the page has words for, in both languages.

The reasons themselves are the programs' own sentences and stand beside. A reason that no pattern
knows is told by its class alone.
"""

KINDS = (
    # Part of the reason, kind. The first that fits counts.
    ("was rebuilt from", "rebuilt"),
    ("paused", "paused"),
    ("is not approved here", "members"),
    ("membership epoch", "members"),
    ("max_epsilon_per_run", "run_limit"),
    ("max_delta", "run_limit"),
    ("lifetime_epsilon", "budget"),
    ("lifetime_delta", "budget"),
    ("yearly_epsilon", "budget"),
    ("attempts are used up", "budget"),
    ("hours:", "hours"),
    ("min_firms", "company"),
    ("min_colluding", "company"),
    ("excluded_operators", "company"),
    ("max_roster_changes", "company"),
    ("min_cosignatures", "company"),
    ("operator run", "company"),
    ("purposes does not allow", "purpose"),
    ("families does not allow", "purpose"),
    ("max_parameters", "purpose"),
    ("units does not allow", "unit"),
    ("policy.toml", "policy_file"),
    ("no policy can be read", "policy_file"),
    ("revoked with", "revoked"),
    ("set back or copied", "set_back"),
    ("restored from an old copy", "set_back"),
    ("ledger could not be", "ledger"),
    ("was closed here", "closed"),
    ("no open session", "restarted"),
    ("no data set", "data"),
    ("data set", "data"),
)


def advice_for(reason: str, refusal_class: str) -> str:
    """The kind of a refusal: the end of its texts' keys."""
    for part, kind in KINDS:
        if part in reason:
            return kind
    return "protocol" if refusal_class == "protocol" else "policy"
