"""What both ports answer: metadata, readiness and predictions, whatever the form on the wire."""

from dataclasses import dataclass

from greylag_server.serving.engine import Answer, Engine
from greylag_server.serving.inference import FLAG, OUTPUT
from greylag_server.serving.models import ServedModel
from greylag_server.serving.refusals import DeclinedError
from greylag_server.serving.tensors import Ask, assemble

NAME = "greylag"
OUTPUTS = (OUTPUT, FLAG)


@dataclass(slots=True, kw_only=True)
class Core:
    """The engine, by the protocol's names."""

    engine: Engine

    def model(self, name: str, version: str) -> ServedModel:
        """The current model, if it is the one that is asked for; no version means the current.

        Raises:
            DeclinedError: it is not.
        """
        model = self.engine.model
        if name != model.name or version not in ("", model.version):
            wanted = f"{name!r:.80}" + (f", version {version!r:.20}," if version else "")
            raise DeclinedError(
                "not-found",
                f"{wanted} is not served here; served is {model.name!r}, version {model.version}",
            )
        return model

    def ready(self, name: str, version: str) -> bool:
        """Whether this model would be predicted with now."""
        try:
            self.model(name, version)
        except DeclinedError:
            return False
        return not self.engine.closed

    async def infer(self, firm: str, name: str, version: str, ask: Ask) -> Answer:
        """Predictions for a firm.

        Raises:
            DeclinedError: see ``Engine.predict`` and ``tensors``.
        """
        model = self.model(name, version)
        return await self.engine.predict(firm, model, assemble(ask, model.schema.names), ask.id)
