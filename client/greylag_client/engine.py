"""Which training engine the terms' unit of privacy means."""

from greylag_protocols.features import Records
from greylag_protocols.terms import Terms

from greylag_client.local_training import LocalTrainer
from greylag_client.session import ClippedSums
from greylag_client.trainer import TrainedModel, Trainer


def make_engine(
    terms: Terms, records: Records, *, pad: bool = True, model: TrainedModel | None = None
) -> ClippedSums:
    """The engine of a run on a firm's training records (arguments as ``Trainer``'s).

    Raises:
        ConfigError: the records do not fit the terms.
        RefusedError: the terms' plugin is not what they pin, or cannot be trained here.
    """
    if terms.privacy.unit == "firm":
        return LocalTrainer(terms, records, pad=pad)
    return Trainer(terms, records, pad=pad, model=model)
