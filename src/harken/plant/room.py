"""The hall: how sound comes from a machine, and from everywhere else, to the microphones.

Impulse responses are a direct path, a few early reflections and an exponentially decaying diffuse tail: the
statistical model of rooms (Kuttruff, Room Acoustics; Polack 1988), enough for colouration and reverberation.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import oaconvolve

from harken.plant.signals import Float, Rng

#: reverberation time in s for 60 dB of decay, and the length of a response: a decay of 40 dB
REVERBERATION_S, RESPONSE_S = 0.35, 0.25
SOUND_M_S = 343.0
#: distance in m from the machine, direct to reverberant energy in dB
NEAR_M, NEAR_DRR_DB = 0.6, 12.0
FAR_M, FAR_DRR_DB = 4.0, -3.0
#: level in dB at which the near microphone hears the machine above the far one: 1/r, less the shared tail
FAR_LOSS_DB = 11.0


def response(distance_m: float, drr_db: float, rate: int, rng: Rng) -> Float:
    """Impulse response (R,) of unit energy from a machine to a microphone."""
    length = int(RESPONSE_S * rate)
    delay = round(distance_m / SOUND_M_S * rate)
    time_R = np.arange(length) / rate
    tail_R = rng.standard_normal(length) * 10.0 ** (-3.0 * time_R / REVERBERATION_S)
    tail_R[: delay + 1] = 0.0
    early_R = np.zeros(length)
    at = delay + (rng.uniform(0.001, 0.02, 6) * rate).astype(np.intp)
    early_R[at] = rng.choice((-1.0, 1.0), 6) * delay / at  # 1/r of the longer path
    # Reflections and tail share the reverberant energy evenly.
    reverberant_R = early_R / np.linalg.norm(early_R) + tail_R / np.linalg.norm(tail_R)
    reverberant_R *= 10.0 ** (-drr_db / 20.0) / np.linalg.norm(reverberant_R)
    reverberant_R[delay] += 1.0
    return np.asarray(reverberant_R / np.linalg.norm(reverberant_R))


def diffuse_pair(rate: int, rng: Rng) -> Float:
    """Responses (2, R) of unit energy from the hall to the two microphones: noise without a direct path."""
    length = int(RESPONSE_S * rate)
    pair = rng.standard_normal((2, length)) * 10.0 ** (-3.0 * np.arange(length) / rate / REVERBERATION_S)
    return np.asarray(pair / np.linalg.norm(pair, axis=1, keepdims=True))


def convolve(signal_T: Float, response_CR: Float) -> Float:
    """(T,) through each response -> (C, T - R): only what is whole, so that no clip fades in."""
    response_CR = response_CR.astype(np.float32)
    return np.stack([oaconvolve(signal_T, response_R, mode="valid")[1:] for response_R in response_CR])
