from greylag_protocols.errors import (
    BudgetExceededError,
    ConfigError,
    GreylagError,
    RefusedError,
    RemoteError,
    VerificationError,
)


def test_a_refusal_has_a_class_and_a_budget_is_policy():
    assert RefusedError("no", refusal_class="protocol").refusal_class == "protocol"
    spent = BudgetExceededError("spent")
    assert isinstance(spent, RefusedError)
    assert (spent.refusal_class, str(spent)) == ("policy", "spent")


def test_a_remote_error_names_its_peer():
    error = RemoteError("gone", peer="firm-a")
    assert (error.peer, str(error)) == ("firm-a", "gone")


def test_exit_codes_tell_wrong_input_from_what_failed():
    failed = (RefusedError, BudgetExceededError, RemoteError, VerificationError)
    assert {kind.exit_code for kind in failed} == {1}
    assert ConfigError.exit_code == 2
    assert all(issubclass(kind, GreylagError) for kind in (*failed, ConfigError))
