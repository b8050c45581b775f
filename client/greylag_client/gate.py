"""Between the engines, that is the ways by which frames come, and the firm's participant.

Whatever way a frame came, it meets the same participant under the same rules, one at a time. What
came by an engine that policy does not allow is refused: so the lead can tell the firm's will from
an agent that is away.
"""

import logging
import sqlite3
import threading
from functools import partial

from greylag_protocols import log
from greylag_protocols.errors import ConfigError, RefusedError
from greylag_protocols.messages import CoordinatorMessage, Refusal, Round
from greylag_protocols.parsing import parse_coordinator_message

from greylag_client.app import answer_frame, make_client_app, make_context
from greylag_client.link import Answer
from greylag_client.participant import Participant
from greylag_client.policy import Engine, ReadPolicy
from greylag_client.session import Identity

logger = logging.getLogger(__name__)


class Gate:
    """One firm's gate."""

    def __init__(self, identity: Identity, policy: ReadPolicy, participant: Participant) -> None:
        self._identity = identity
        self._policy = policy
        self._app, self._context = make_client_app(participant), make_context()
        self._one_at_a_time = threading.Lock()

    def answer_over(self, engine: Engine) -> Answer:
        """What answers the frames that come by ``engine``."""
        return partial(self._answer, engine)

    def _answer(self, engine: Engine, frame: bytes) -> bytes:
        message = parse_coordinator_message(frame)
        try:
            self._policy().check_engine(engine)
        except (ConfigError, RefusedError) as error:
            logger.warning("%s: refused (policy): %s", message.run, error)
            return self._refuse(message).encode()
        with self._one_at_a_time:
            try:
                train = isinstance(message, Round)
                return answer_frame(self._app, self._context, frame, train=train)
            except sqlite3.Error as error:  # a damaged or locked file must not end the agent
                raise RefusedError(
                    f"the ledger could not be read ({error}); nothing was sent. End the other "
                    "program that holds it; `greylag-client doctor` says whether it is damaged",
                    refusal_class="protocol",
                ) from None

    def _refuse(self, message: CoordinatorMessage) -> Refusal:
        statement = log.sign_refusal(
            self._identity.signer,
            firm=self._identity.firm,
            run=message.run,
            refusal_class="policy",
        )
        return Refusal(run=message.run, refusal_class="policy", statement=statement)
