"""Room acoustics: impulse responses from a machine, and from the diffuse noise field, to the microphones.

An impulse response is a direct path, a few early reflections and an exponentially decaying diffuse tail: the
statistical room model (Kuttruff, Room Acoustics; Polack 1988), enough for colouration and reverberation.
"""

from __future__ import annotations

import numpy as np
from scipy.signal import oaconvolve

from harken.plant.signals import Float, Rng

#: reverberation time RT60 in s; length of a response in s (40 dB of decay)
REVERBERATION_S, RESPONSE_S = 0.35, 0.25
SOUND_M_S = 343.0
#: distance in m from the machine, direct-to-reverberant ratio in dB
NEAR_M, NEAR_DRR_DB = 0.6, 12.0
FAR_M, FAR_DRR_DB = 4.0, -3.0
#: level difference of the machine in dB between near and far microphone: 1/r, less the common reverberation
FAR_LOSS_DB = 11.0


def response(distance_m: float, drr_db: float, rate: int, rng: Rng) -> Float:
    """Impulse response (R,) of unit energy from a machine to a microphone."""
    length = int(RESPONSE_S * rate)
    delay = round(distance_m / SOUND_M_S * rate)
    time_R = np.arange(length) / rate
    tail_R = rng.standard_normal(length) * 10.0 ** (-3.0 * time_R / REVERBERATION_S)
    tail_R[: delay + 1] = 0.0
    early_R = np.zeros(length)
    arrival = delay + (rng.uniform(0.001, 0.02, 6) * rate).astype(np.intp)
    early_R[arrival] = rng.choice((-1.0, 1.0), 6) * delay / arrival  # 1/r of the longer path
    # Reflections and tail have equal energy.
    reverberant_R = early_R / np.linalg.norm(early_R) + tail_R / np.linalg.norm(tail_R)
    reverberant_R *= 10.0 ** (-drr_db / 20.0) / np.linalg.norm(reverberant_R)
    reverberant_R[delay] += 1.0
    return np.asarray(reverberant_R / np.linalg.norm(reverberant_R))


def diffuse_pair(rate: int, rng: Rng) -> Float:
    """Responses (2, R) of unit energy from the diffuse field to the two microphones, without a direct path."""
    length = int(RESPONSE_S * rate)
    pair = rng.standard_normal((2, length)) * 10.0 ** (-3.0 * np.arange(length) / rate / REVERBERATION_S)
    return np.asarray(pair / np.linalg.norm(pair, axis=1, keepdims=True))


def convolve(signal_S: Float, response_CR: Float) -> Float:
    """Convolve (S,) with each response -> (C, S - R): full overlap only, so that no clip fades in."""
    response_CR = response_CR.astype(np.float32)
    return np.stack([oaconvolve(signal_S, response_R, mode="valid")[1:] for response_R in response_CR])
