"""Which rows of a firm's table form one unit of privacy.

A unit's gradient may depend on its own rows and public state only. So what is left out when a
group is larger than the public bound depends on that group alone: its first rows in the table's
order stay.
"""

import numpy as np
import torch
from greylag_protocols.errors import ConfigError
from greylag_protocols.features import Records
from greylag_protocols.terms import Terms
from numpy.typing import NDArray

NO_ROW = -1  # also the index of the empty row that tables are padded from


def rows_of_units(terms: Terms, records: Records) -> NDArray[np.intp]:
    """Row numbers by unit, shape (units, rows per unit), ``NO_ROW`` where a unit has fewer.

    Raises:
        ConfigError: more units than the terms allow a firm.
    """
    if terms.privacy.unit == "record":
        return np.arange(len(records), dtype=np.intp)[:, np.newaxis]
    if terms.privacy.unit == "firm":
        rows = np.full((1, terms.rows_per_unit), NO_ROW, dtype=np.intp)
        rows[0, : len(records)] = np.arange(len(records))[: terms.rows_per_unit]
        return rows
    return _rows_of_groups(terms, records)


def _rows_of_groups(terms: Terms, records: Records) -> NDArray[np.intp]:
    if records.groups is None:
        raise ConfigError('unit = "group" needs a group for every row; set data.group in the plan')
    _, group_of_row = np.unique(records.groups, return_inverse=True)
    counts = np.bincount(group_of_row)
    most = terms.mechanism.records_cap
    if len(counts) > most:
        raise ConfigError(
            f"{len(counts)} groups are more than the {most} (max_groups_per_firm) that the terms "
            "allow a firm; leave some out"
        )
    order = np.argsort(group_of_row, kind="stable")  # group by group, rows in the table's order
    starts = np.cumsum(counts) - counts
    place = np.arange(len(order)) - np.repeat(starts, counts)
    kept = place < terms.rows_per_unit
    rows = np.full((len(counts), terms.rows_per_unit), NO_ROW, dtype=np.intp)
    rows[group_of_row[order][kept], place[kept]] = order[kept]
    return rows


def with_empty_row(values: NDArray[np.float64]) -> torch.Tensor:
    """``values`` and, as the last row, zeros: what ``NO_ROW`` points at."""
    return torch.from_numpy(np.concatenate([values, np.zeros((1, values.shape[1]))]))
