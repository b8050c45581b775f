"""The ClientApp of the bundle for stock Flower: it carries frames to the firm's own agent.

It holds no key and no data, and reads nothing in a frame. The SuperNode's node config says where
the agent is: ``--node-config 'agent="/path/of/the/firm/door/agent.sock"'``. Without an agent it
fails, which the coordinator sees as a firm that is away.
"""

from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from greylag_protocols.errors import ConfigError

from greylag_client.local_door import ask_agent

RECORD, FIELD, AGENT_FIELD = "greylag", "frame", "agent"
NODE_KEY = "agent"

app = ClientApp()


@app.train()
@app.query()
def forward(message: Message, context: Context) -> Message:
    """Hand the message's frame to the agent, and its reply back."""
    path = context.node_config.get(NODE_KEY)
    if not isinstance(path, str) or not path:
        raise ConfigError(
            "this SuperNode was not told where the agent is: start it with "
            f"--node-config '{NODE_KEY}=\"/path/of/the/firm/door/agent.sock\"'"
        )
    record = message.content.get(RECORD)
    frame = record.get(FIELD) if isinstance(record, ConfigRecord) else None
    agent, reply = ask_agent(Path(path), frame if isinstance(frame, bytes) else b"")
    content = RecordDict({RECORD: ConfigRecord({FIELD: reply, AGENT_FIELD: agent})})
    return Message(content, reply_to=message)
