"""Filters by sounds that rows name: duration, size, and how far they stand out from noise.

The ratio of signal to noise is that of the loud to the quiet: with the powers p of frames of 25 ms,
half of them overlapping, and q the mean power of the quietest tenth::

    SNR = 10 log10(max(mean(p) - q, 0) / q)

a rough one that needs no model; it takes the quietest moments for noise, so that music without a
pause comes out low. Silence has no SNR: minus infinity.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sharpen.core.errors import DataError, DependencyNotInstalled
from sharpen.data.ops.base import operator
from sharpen.data.ops.media.base import FileSize, Measured, MediaRange

__all__ = ["AudioDuration", "AudioSize", "AudioSnr", "signal_to_noise"]

_FRAME_S = 0.025
_QUIET = 0.1


def _opened(data: bytes, name: str) -> Any:
    try:
        import soundfile
    except (ModuleNotFoundError, OSError):  # the latter without libsndfile
        raise DependencyNotInstalled.for_feature("operators of sounds", "data-media") from None
    try:
        return soundfile.SoundFile(io.BytesIO(data))
    except soundfile.LibsndfileError as error:
        shown = name if not name.startswith("data:") else "a data: address"
        raise DataError(f"{shown} is no sound that can be read: {error.error_string}") from None


@dataclass(frozen=True, kw_only=True)
class AudioRange(MediaRange):
    """A filter of one statistic of sounds."""

    field: str = "audios"
    """Where the row's sounds are named."""

    min: float = 0
    """Least value to keep."""


@operator("audio_duration")
@dataclass(frozen=True, kw_only=True)
class AudioDuration(AudioRange):
    """Seconds of sounds."""

    def measure_file(self, data: bytes, name: str) -> Measured:
        """See :class:`MediaFilter`."""
        with _opened(data, name) as sound:
            return {self.name: sound.frames / sound.samplerate}


@operator("audio_size")
@dataclass(frozen=True, kw_only=True)
class AudioSize(FileSize):
    """Bytes of the files of sounds."""

    field: str = "audios"
    """Where the row's sounds are named."""


@operator("audio_snr")
@dataclass(frozen=True, kw_only=True)
class AudioSnr(AudioRange):
    """Ratio of signal to noise in dB, with the quietest tenth of the sound taken for noise."""

    def measure_file(self, data: bytes, name: str) -> Measured:
        """See :class:`MediaFilter`."""
        with _opened(data, name) as sound:
            samples = sound.read(dtype="float64", always_2d=True).mean(1)
            return {self.name: signal_to_noise(samples, sound.samplerate)}


def signal_to_noise(samples: npt.NDArray[np.float64], rate: int) -> float:
    """In dB; infinite without noise, minus infinite without signal.

    Args:
        samples: [samples] of one channel.
        rate: samples a second.
    """
    size = max(round(_FRAME_S * rate), 1)
    starts = np.arange(0, max(len(samples) - size, 0) + 1, max(size // 2, 1))
    before = np.concatenate([[0.0], np.cumsum(samples**2)])
    ends = np.minimum(starts + size, len(samples))
    powers = np.sort((before[ends] - before[starts]) / np.maximum(ends - starts, 1))
    quiet = float(powers[: max(math.ceil(_QUIET * len(powers)), 1)].mean())
    signal = float(powers.mean()) - quiet
    if signal <= 0:
        return -math.inf
    return 10 * math.log10(signal / quiet) if quiet > 0 else math.inf
