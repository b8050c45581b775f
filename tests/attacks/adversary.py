"""What an attacker does with what it got: forge key batches, take masks off, measure what is left.

Distances are in ``sigma C``: an honest roster's noise is 1 of these at least, one firm's own share
``1 / sqrt(|R| - t)``.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from attacks.machines import sums_of
from consortium_in_memory import NAME, Firm
from greylag_protocols.accounting import epsilon_of, poisson_gaussian
from greylag_protocols.keys import sign_batch
from greylag_protocols.log import ChainTip
from greylag_protocols.masking import add_masks, pair_key
from greylag_protocols.messages import Round, SignedBatch
from greylag_protocols.signing import Ed25519Signer
from lying_lead import Lead
from numpy.typing import NDArray

Ring, Integers = NDArray[np.uint32], NDArray[np.int32]

# The glass recipes' run: 20 firms, t = 6, epsilon 2 for 500 attempts if 14 shares of noise are in.
GLASS = poisson_gaussian(sampling_rate=0.2, noise_multiplier=10.07, records_cap=5000)
GLASS_SHARES = 14


def glass_epsilon(shares: int) -> float:
    """Epsilon of that run when only ``shares`` firms really add their noise."""
    mechanism = GLASS.scaled((shares / GLASS_SHARES) ** 0.5)
    return epsilon_of(mechanism, releases=500, delta=1e-6)


def context_of(lead: Lead, message: Round) -> bytes:
    """The context that a round message makes."""
    session = lead.victim.participant._sessions[lead.run]
    return message.attempt_under(session.digest, origin=NAME).context()


def put_in(lead: Lead, name: str, message: Round) -> Integers:
    """What a firm put into an attempt, before its masks: what an attacker would like to see."""
    return lead.consortium.firms[name].masks.put_in[context_of(lead, message)]


def forge_batch(
    lead: Lead, name: str, keys: Sequence[bytes], signer: Ed25519Signer, *, epoch: int = 1
) -> None:
    """Keys of the attacker's choice under a firm's name, for attempts 1 onwards."""
    statement = sign_batch(
        signer,
        keys,
        firm=name,
        consortium=NAME,
        epoch=epoch,
        run=lead.run,
        terms=lead.victim.participant._sessions[lead.run].digest,
        first=1,
        tip=ChainTip(seq=9, head=bytes(32)),
    )
    lead.take_batch(name, SignedBatch(statement=statement, keys=tuple(keys)))


def unmask(
    lead: Lead, name: str, message: Round, vector: Ring, private: Mapping[str, bytes]
) -> Integers:
    """A firm's vector less its masks with everybody whose private key the attacker has."""
    context, own = context_of(lead, message), message.roster.index(name)
    bare = vector.copy()
    for at, peer in enumerate(message.roster):
        if peer in private:
            key = pair_key(private[peer], message.keys[own], context)
            add_masks(bare, add=[key] if at < own else [], subtract=[key] if at > own else [])
    return bare.view(np.int32)


def data_of(lead: Lead, name: str, *, firms: int, at: int = -1) -> Integers:
    """A firm's clipped sum of one attempt, in grid steps of a roster of ``firms``."""
    firm: Firm = lead.consortium.firms[name]
    step = lead.consortium.terms.grid(firms).step
    return np.rint(sums_of(firm.participant, lead.run)[at] / step).astype(np.int32)


def distance(lead: Lead, found: Integers, truth: Integers, *, firms: int) -> float:
    """How far what was found is from the truth, a coordinate, in sigma C."""
    privacy = lead.consortium.terms.privacy
    off = (found - truth).astype(np.float64) * lead.consortium.terms.grid(firms).step
    return float(np.std(off)) / (privacy.noise_multiplier * privacy.clip_norm)


def total_of(vectors: Iterable[Ring | Integers]) -> Integers:
    """The sum mod 2^32, read with its sign."""
    total = sum(vector.view(np.uint32).astype(np.uint64) for vector in vectors)
    return np.asarray(total).astype(np.uint32).view(np.int32)


def looks_uniform(vector: Integers) -> bool:
    """As wide as the whole ring, which tells nothing: its deviation is 2^32 / sqrt(12)."""
    return abs(float(np.std(vector)) / (2**32 / np.sqrt(12)) - 1) < 0.05
