"""The range of the gain, the played rounds and the counted bytes, by themselves."""

from dataclasses import replace

import numpy as np
import pytest
from consortium_in_memory import make_records, make_terms
from greylag_client.rehearsal.cost import cost_of
from greylag_client.rehearsal.curves import Measured, Point
from greylag_client.rehearsal.effort import message_bytes
from greylag_client.rehearsal.gain import Gain, judge
from greylag_client.rehearsal.rounds import Crowd, play_rounds, predict
from greylag_client.rehearsal.sight import sight_of
from greylag_protocols.accounting import epsilon_of

TERMS = make_terms()


def measured(rows: int, *, alone: float = 0.1, noisy: float = 0.1) -> Measured:
    def point(count: int, error: float) -> Point:
        return Point(rows=count, losses=np.full(10, error**2))

    return Measured(
        task="regression",
        groups=np.arange(10),
        alone=(point(rows // 4, 2 * alone), point(rows // 2, 1.5 * alone), point(rows, alone)),
        clean=(point(rows, noisy),),
        noisy=(point(rows, noisy),),
    )


def judged(rows: int, **errors: float) -> Gain:
    return judge(measured(rows, **errors), TERMS, pooled_rows=10_000)


def test_the_range_is_wider_the_smaller_the_firm() -> None:
    widths = [np.log(gain.together[2] / gain.together[0]) for gain in map(judged, [40, 400, 4000])]
    assert widths[0] > widths[1] > widths[2] > 0.1


def test_a_plan_that_does_badly_here_counts_against_it() -> None:
    good, bad = judged(400, noisy=0.05), judged(400, noisy=0.5)
    assert good.together[1] < bad.together[1]
    assert good.chance > bad.chance


def test_the_sentence_follows_the_range() -> None:
    assert judged(4000, noisy=0.01).advice == "would probably help"
    assert judged(40).advice == "hard to say"
    worse = judged(4000, noisy=2.0)
    assert worse.advice == "would probably not help you"
    for gain in (judged(4000, noisy=0.01), judged(40), worse):
        low, _, high = gain.gain
        assert (low > 0, high < 0) == (
            gain.advice == "would probably help",
            gain.advice == "would probably not help you",
        )


def test_a_measured_curve_moves_the_prior_only_a_little() -> None:
    gain = judged(400)
    assert gain.exponent_here == pytest.approx(0.5)
    assert 0.06 < gain.exponent[0] < 0.15
    short = replace(measured(400), alone=measured(400).alone[-1:])
    assert judge(short, TERMS, pooled_rows=10_000).exponent[0] == 0.06


@pytest.mark.parametrize("unit", ["record", "group", "firm"])
def test_rounds_are_played_for_every_unit(unit: str) -> None:
    terms = make_terms(unit=unit)
    records = make_records(terms, seed=1)
    crowd = Crowd(firms=6, most_units=15)
    clean = play_rounds(terms, records, crowd, noisy=False, seed=1)
    noisy = play_rounds(terms, records, crowd, noisy=True, seed=1)
    assert clean.shape == (terms.dimension,)
    assert not np.array_equal(clean, noisy)
    assert np.isfinite(predict(terms, noisy, np.zeros((2, 3)))).all()


def test_played_noise_is_that_of_the_whole_roster() -> None:
    """One round of plain descent from records that pull nowhere: the step is noise alone."""
    terms = make_terms(rounds=1)
    training = replace(
        terms.training, optimiser="momentum", learning_rate=1.0, schedule="constant", ema=0.0
    )
    terms = replace(terms, training=training)
    records = make_records(terms, seed=2)
    records = replace(records, targets=np.full_like(records.targets, np.nan))
    firms, draws = 9, []
    for seed in range(40):
        crowd = Crowd(firms=firms, most_units=100)
        clean = play_rounds(terms, records, crowd, noisy=False, seed=seed)
        draws.append(play_rounds(terms, records, crowd, noisy=True, seed=seed) - clean)
    expected = terms.grid(firms).noise_std * firms**0.5 / terms.denominator
    assert np.std(draws) == pytest.approx(expected, rel=0.1)


def test_a_lone_share_protects_less_the_more_others_are_counted_on() -> None:
    terms = make_terms(unit="firm")
    few, many, crowd = (cost_of(terms, firms=count, largest_group=None) for count in (3, 5, 90))
    assert few.copies == ()  # firms are told apart by name
    assert few.lone is not None
    assert many.lone is not None
    privacy = terms.privacy
    own = terms.mechanism.scaled(2**-0.5)
    assert few.lone == epsilon_of(own, releases=privacy.max_attempts, delta=privacy.delta)
    assert many.lone > few.lone > privacy.epsilon
    assert crowd.lone is None  # so little noise promises nothing


def test_bytes_are_the_vector_and_a_little_more() -> None:
    large = replace(TERMS, model=replace(TERMS.model, hidden=(4000,)))
    for terms in (TERMS, large):
        up, down, keys_up, keys_down = message_bytes(terms, firms=20)
        assert 0 < up - 4 * terms.dimension < 2_000
        assert 0 < down - 4 * terms.dimension < 20 * 400
        assert keys_up > 0
        assert keys_down > 20 * 64


def test_what_is_seen_follows_the_terms() -> None:
    seen = sight_of(TERMS, firms=9, columns=["a", "b", "c", "y", "z", "price"], member="north")
    assert seen.untouched == ("price",)
    assert seen.read == ("a", "b", "c", "y", "z")
    assert seen.noise == pytest.approx(TERMS.privacy.noise_multiplier, rel=1e-3)
    assert dict(seen.parties).keys() == {
        "the lead", "other firms", "an auditor", "the public", "nobody",
    }  # fmt: skip
    lead = " ".join(dict(seen.parties)["the lead"])
    assert "50 words" in lead
    assert "all 8 firms" in lead
    assert "north" in lead
