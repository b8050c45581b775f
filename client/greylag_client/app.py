"""The agent as a Flower ClientApp: frames in, frames out, nothing loaded from the message."""

import time

from flwr.app import ConfigRecord, Context, Message, Metadata, RecordDict
from flwr.clientapp import ClientApp
from greylag_protocols.messages import Round
from greylag_protocols.parsing import parse_coordinator_message

from greylag_client.participant import Participant

RECORD = "greylag"
FIELD = "frame"


def make_client_app(participant: Participant) -> ClientApp:
    """A ClientApp around one firm's participant.

    A reply to a round leaves no earlier than the terms' public offset after its request, so that
    time does not show how long the firm computed.
    """
    app = ClientApp()

    def answer(message: Message, context: Context) -> Message:
        started_s = time.monotonic()
        record = message.content.get(RECORD)
        frame = record.get(FIELD) if isinstance(record, ConfigRecord) else None
        request = parse_coordinator_message(frame if isinstance(frame, bytes) else b"")
        reply = participant.handle(request).encode()
        wait_s = participant.reply_offset_s(request.run) - (time.monotonic() - started_s)
        if isinstance(request, Round) and wait_s > 0:
            time.sleep(wait_s)
        return Message(RecordDict({RECORD: ConfigRecord({FIELD: reply})}), reply_to=message)

    app.train()(answer)
    app.query()(answer)
    return app


def answer_frame(app: ClientApp, context: Context, frame: bytes, *, train: bool) -> bytes:
    """Answer a frame that came over greylag's own link.

    Raises:
        VerificationError: the frame is not a message of the coordinator's.
    """
    metadata = Metadata(
        run_id=context.run_id,
        message_id="",
        src_node_id=0,
        dst_node_id=context.node_id,
        reply_to_message_id="",
        group_id="",
        created_at=time.time(),
        ttl=3600.0,
        message_type="train" if train else "query",
    )
    content = RecordDict({RECORD: ConfigRecord({FIELD: frame})})
    request = Message(content=content, metadata=metadata)  # type: ignore[call-overload]
    record = app(request, context).content[RECORD]
    reply = record[FIELD] if isinstance(record, ConfigRecord) else b""
    return reply if isinstance(reply, bytes) else b""


def make_context() -> Context:
    """The context of an app that keeps its state elsewhere (in the ledger)."""
    return Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
