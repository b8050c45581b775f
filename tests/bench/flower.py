"""One client of flwr's SecAgg+ on its full graph: the installed package's own client functions.

Everybody is everybody's neighbour, as with greylag's masks. Settings are the defaults of flwr's
``SecAggPlusWorkflow``; the threshold is the least that is a majority, which is the cheapest.
"""

import os

import numpy as np
from flwr.app import ConfigRecord
from flwr.client.mod.secure_aggregation.secaggplus_mod import (
    SecAggPlusState,
    _collect_masked_vectors,
    _setup,
    _share_keys,
)
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.crypto.symmetric_encryption import encrypt, generate_shared_key
from flwr.common.secure_aggregation.secaggplus_constants import Key
from flwr.common.secure_aggregation.secaggplus_utils import share_keys_plaintext_concat
from flwr.supercore.primitives.asymmetric import bytes_to_private_key, bytes_to_public_key

NODE = 1  # the measured client; its masks are subtracted, the others' have larger numbers
EXAMPLES = 100


class FlowerClient:
    """The measured client among ``firms``; its peers exist as far as it hears of them."""

    def __init__(self, firms: int) -> None:
        self._firms = firms
        self._peers = {node: self._start(node) for node in range(2, firms + 1)}
        self._state = self._start(NODE)
        self._replies: dict[str, list[bytes] | list[int]] = {}
        self._update = ndarrays_to_parameters([])

    def _start(self, node: int) -> SecAggPlusState:
        state = SecAggPlusState()
        state.nid = node
        _setup(
            state,
            ConfigRecord(
                {
                    Key.SAMPLE_NUMBER: self._firms,
                    Key.SHARE_NUMBER: self._firms,
                    Key.THRESHOLD: self._firms // 2 + 1,
                    Key.CLIPPING_RANGE: 8.0,
                    Key.TARGET_RANGE: 1 << 22,
                    Key.MOD_RANGE: 1 << 32,
                    Key.MAX_WEIGHT: 1000.0,
                }
            ),
        )
        return state

    def set_up(self) -> None:
        """Generate keys and share them: what each round of SecAgg+ does before masking."""
        self._state = self._start(NODE)
        keys = {str(node): [peer.pk1, peer.pk2] for node, peer in self._peers.items()}
        keys[str(NODE)] = [self._state.pk1, self._state.pk2]
        _share_keys(self._state, ConfigRecord(keys))

    def receive_shares(self) -> None:
        """What the peers would send: their shares, encrypted to the measured client."""
        shares = self._state.rd_seed_share_dict[NODE], self._state.sk1_share_dict[NODE]
        own = bytes_to_public_key(self._state.pk2)
        ciphertexts = [
            encrypt(
                generate_shared_key(bytes_to_private_key(peer.sk2), own),
                share_keys_plaintext_concat(node, NODE, *(os.urandom(len(s)) for s in shares)),
            )
            for node, peer in self._peers.items()
        ]
        self._replies = {Key.CIPHERTEXT_LIST: ciphertexts, Key.SOURCE_LIST: list(self._peers)}

    def train(self, dimension: int) -> None:
        """An update to be masked; training is not measured."""
        rng = np.random.default_rng(0)
        self._update = ndarrays_to_parameters([rng.random(dimension, dtype=np.float32)])

    def mask(self) -> None:
        """Decrypt shares, quantise, agree on keys, mask: the third of SecAgg+'s four messages."""
        _collect_masked_vectors(self._state, ConfigRecord(self._replies), EXAMPLES, self._update)
