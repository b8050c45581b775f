"""Whole parcels from chunks, as the coordinator's grid reads them one by one."""

from collections.abc import Iterable, Iterator

from greylag_server.grid_grpc import ParcelReader


def join_parcels(chunks: Iterable[bytes], *, limit: int) -> Iterator[bytes]:
    """Message id and frame in one; errors as of ``ParcelReader.take``."""
    parcels = ParcelReader(limit=limit)
    for chunk in chunks:
        if (parcel := parcels.take(chunk)) is not None:
            yield b"".join(parcel)
