"""From clipped sums and noise to ring elements, and back.

A firm rounds its clipped sum and its noise **separately** to a grid of width ``gamma`` and adds
the integers mod 2^32. Rounding is deterministic, so removing one record moves the rounded sum by at
most ``C + gamma sqrt(d)`` in L2 (each coordinate's rounding error is below ``gamma / 2``, twice).
Noise is scaled to that, plus ``rho`` for the error of float arithmetic:

    s^2 = sigma^2 (C + gamma sqrt(d) + rho)^2 / (|R| - t)

so that the firms outside a coalition of ``t`` still supply ``sigma`` in full. The sum of rounded
Gaussians is within O(h d T exp(-pi^2 s^2)) in total variation of a rounded Gaussian (s in grid
units; Canonne, Kamath, Steinke 2020 treat the exact discrete case): hence ``s >= 10``.

The grid leaves every firm room for a full batch and thirteen standard deviations of its noise: an
honest sum never wraps, and what a firm puts in is what comes out, to the integer. Noise is clamped
with probability 1.3e-38 a coordinate, far below any delta.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from greylag_protocols.errors import ConfigError, VerificationError

HALF_RING = 2**31
CHUNK = 1 << 14  # coordinates that are rounded at a time
NOISE_ROOM = 13.0  # standard deviations of one firm's noise that fit its share of the ring
MIN_NOISE_STEPS = 10.0  # smallest noise standard deviation, in grid steps
CLIP_SLACK = 1e-5  # records are clipped to C (1 - CLIP_SLACK): float norms overshoot
FLOAT_ERROR = 1e-6  # rho / C
# Two float64 sums of B vectors of norm C are off by at most 2 B^2 2^-53 C together (Higham 2002,
# section 4.2), which rho and CLIP_SLACK cover up to this B.
MAX_BATCH_CAP = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RingGrid:
    """How one roster's contributions are laid on the ring of 2^32.

    Attributes:
        firms: roster size ``|R|``.
        share: largest absolute integer that one firm may send per coordinate.
        step: ``gamma``, in units of the gradient.
        noise_std: standard deviation of one firm's noise, in units of the gradient.
        norm_limit: no honest sum is longer than this (grid steps, L2).
    """

    firms: int
    share: int
    step: float
    noise_std: float
    norm_limit: float

    @classmethod
    def of(
        cls,
        *,
        firms: int,
        max_colluding: int,
        clip_norm: float,
        noise_multiplier: float,
        batch_cap: int,
        dimension: int,
    ) -> "RingGrid":
        """The grid for a roster of ``firms`` when at most ``batch_cap`` records enter at each.

        Raises:
            ConfigError: too few firms for ``max_colluding``, or noise too fine for the grid.
        """
        honest = firms - max_colluding
        if honest < 2:
            raise ConfigError(
                f"a roster of {firms} with max_colluding {max_colluding} leaves fewer than 2 "
                "honest firms to hide among; invite more firms or lower max_colluding"
            )
        if batch_cap > MAX_BATCH_CAP:
            raise ConfigError(
                f"{batch_cap} units of one firm in one release are more than {MAX_BATCH_CAP}, for "
                "which the error of summing is paid: lower sampling_rate or max_records_per_firm"
            )
        # Room is measured in the noise that is really added, which grows with the step itself:
        # share step = batch_cap C + NOISE_ROOM noise_std, solved for the step.
        share = (HALF_RING - 1) // firms
        width = noise_multiplier / math.sqrt(honest)  # of one firm's noise, in sensitivities
        steps = share - NOISE_ROOM * width * math.sqrt(dimension)
        if steps < 1:
            raise ConfigError(
                f"the noise of {firms} firms on {dimension} weights does not fit the ring: take a "
                "smaller model, fewer firms or less noise"
            )
        reach = batch_cap * clip_norm + NOISE_ROOM * width * clip_norm * (1 + FLOAT_ERROR)
        step = reach / steps
        sensitivity = clip_norm * (1 + FLOAT_ERROR) + step * math.sqrt(dimension)
        noise_std = noise_multiplier * sensitivity / math.sqrt(honest)
        if noise_std / step < MIN_NOISE_STEPS:
            raise ConfigError(
                f"one firm's noise is only {noise_std / step:.1f} grid steps wide (at least "
                f"{MIN_NOISE_STEPS:.0f} are needed): lower max_records_per_firm or sampling_rate"
            )
        signal = firms * batch_cap * clip_norm
        noise = noise_std * (math.sqrt(firms * dimension) + NOISE_ROOM * math.sqrt(firms))
        norm_limit = (signal + noise) / step + math.sqrt(dimension) * firms
        return cls(firms=firms, share=share, step=step, noise_std=noise_std, norm_limit=norm_limit)

    def encode(
        self, clipped_sum: NDArray[np.float64], normals: NDArray[np.float64]
    ) -> NDArray[np.int32]:
        """One firm's integers: rounded sum plus rounded noise, clamped to the firm's share.

        Args:
            clipped_sum: shape (d,), the sum of clipped gradients.
            normals: shape (d,), standard normals from a CSPRNG.

        Never fails on its input: a value that is not a number counts as zero, since after the
        debit nothing about the data may show.
        """
        limit = float(self.share)
        reach = limit * self.step
        scale = self.noise_std / self.step
        integers = np.empty(len(clipped_sum), dtype=np.int32)
        rounded, noise = np.empty(CHUNK), np.empty(CHUNK)
        # Chunk by chunk, in buffers that stay in cache: half the time of whole vectors.
        for start in range(0, len(integers), CHUNK):
            part = slice(start, min(start + CHUNK, len(integers)))
            data, size = clipped_sum[part], part.stop - start
            total, steps = rounded[:size], noise[:size]
            np.clip(data, -reach, reach, out=total)  # clamped first: no overflow
            total[~np.isfinite(data)] = 0.0
            np.rint(np.divide(total, self.step, out=total), out=total)
            np.rint(np.multiply(normals[part], scale, out=steps), out=steps)
            np.clip(np.add(total, steps, out=total), -limit, limit, out=total)
            integers[part] = total
        return integers

    def decode(self, total: NDArray[np.uint32]) -> NDArray[np.int32]:
        """The integer sum over the roster, shape (d,).

        Raises:
            VerificationError: longer than honest firms can make it, so the masks did not cancel.
        """
        integers = total.view(np.int32)
        values = integers.astype(np.float64)
        length = math.sqrt(float(np.sum(np.square(values))))
        if length > self.norm_limit:
            raise VerificationError(
                "the sum is longer than honest contributions can make it: the masks did not "
                "cancel (a firm answered in another context) or a firm sent noise at will"
            )
        return integers
