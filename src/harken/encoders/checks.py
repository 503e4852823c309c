"""Checks of every encoder, Harken's and custom ones.

Each check takes a function that makes an encoder, and raises AssertionError if it fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harken.core.conformance import check_all, require, require_refusal
from harken.encoders import create_encoder
from harken.encoders.base import Encoder
from harken.encoders.pooling import pool

Make = Callable[[], Encoder]
Float32 = NDArray[np.float32]


def check_encoder(
    encoder: str | type[Encoder],
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Raise AssertionError, saying which check fails and how, unless the encoder passes all of `CHECKS`.

    encoder: a class, or any name that `create_encoder` takes. config, weights: as there.
    """

    def make() -> Encoder:
        if isinstance(encoder, str):
            return create_encoder(encoder, config, weights)
        return _built(encoder, config or {}, weights)

    name = encoder if isinstance(encoder, str) else encoder.__name__
    check_all(name, CHECKS, make)


def attributes_are_valid(make: Make) -> None:
    """It has a name, a sampling rate, a shortest waveform, layers, and a default one among them."""
    encoder = make()
    require(isinstance(encoder.name, str), f"Its name is {encoder.name!r}.")
    for attribute in ("sample_rate", "min_samples"):
        require(
            isinstance(getattr(encoder, attribute), int) and getattr(encoder, attribute) > 0,
            f"{attribute} is not a whole number.",
        )
    require(isinstance(encoder.layers, tuple) and len(encoder.layers) > 0, f"Its layers are {encoder.layers!r}.")
    require(encoder.default_layer in encoder.layers, f"{encoder.default_layer!r} is none of {encoder.layers}.")


def features_have_the_expected_form(make: Make) -> None:
    """Features are float32 (clips, layers, frames, dimensions), finite, and differ from sound to sound."""
    encoder = make()
    for samples in (encoder.min_samples, encoder.min_samples + 1, encoder.min_samples + encoder.sample_rate):
        embedding = encoder.encode(sound(encoder, 2, samples))
        features_BLTD, lengths_B = embedding.features_BLTD, np.asarray(embedding.lengths_B)
        require(features_BLTD.dtype == np.float32, f"They are {features_BLTD.dtype}.")
        require(features_BLTD.ndim == 4, f"They are of shape {features_BLTD.shape}.")
        require(features_BLTD.shape[:2] == (2, 1), f"Two clips and a layer give shape {features_BLTD.shape}.")
        require(
            embedding.layers == (encoder.default_layer,), f"Without layers asked for, they are of {embedding.layers}."
        )
        require(lengths_B.tolist() == [features_BLTD.shape[2]] * 2, f"Clips without padding have {lengths_B} frames.")
        require(len(features_BLTD[0, 0]) > 0, f"{samples} samples give no frame.")
        require(bool(np.isfinite(features_BLTD).all()), "Some are not finite.")
        require(not np.array_equal(features_BLTD[0], features_BLTD[1]), "Two sounds give the same.")


def the_same_sound_is_the_same(make: Make) -> None:
    """The same waveform gives the same features to the last bit, and so does one built again from `config`."""
    encoder = make()
    config = encoder.config()
    try:
        read = json.loads(json.dumps(config))
    except TypeError as error:
        raise AssertionError(f"config is not JSON: {error}.") from error
    rebuilt = _built(type(encoder), read, encoder.weights())
    wave_BS = sound(encoder, 1, 2 * encoder.min_samples)
    expected = encoder.encode(wave_BS).features_BLTD
    require(np.array_equal(expected, encoder.encode(wave_BS).features_BLTD), "A second time they differ.")
    require(np.array_equal(expected, rebuilt.encode(wave_BS).features_BLTD), f"Built again from {config}, they differ.")


def every_layer_can_be_asked_for(make: Make) -> None:
    """Each layer can be asked for by name."""
    encoder = make()
    wave_BS = sound(encoder, 1, encoder.min_samples)
    for layer in encoder.layers:
        embedding = encoder.encode(wave_BS, layers=(layer,))
        require(embedding.layers == (layer,), f"Asked for {layer}, it gives {embedding.layers}.")
        require(embedding.features_BLTD.shape[1] == 1, f"{layer} alone gives shape {embedding.features_BLTD.shape}.")


def padding_is_not_heard(make: Make) -> None:
    """A clip that was padded to the length of another gives the frames that it gives alone."""
    encoder = make()
    lengths_B = encoder.min_samples + encoder.sample_rate * np.array([1, 0, 2]) // 2
    wave_BS = sound(encoder, 3, int(lengths_B.max()))
    embedding = encoder.encode(wave_BS, lengths_B)
    for row, length in enumerate(lengths_B):
        alone = encoder.encode(wave_BS[row : row + 1, :length])
        frames = int(alone.lengths_B[0])
        require(int(embedding.lengths_B[row]) == frames, f"It has {embedding.lengths_B[row]} frames, alone {frames}.")
        near = np.allclose(embedding.features_BLTD[row, :, :frames], alone.features_BLTD[0], rtol=1e-4, atol=1e-4)
        require(near, "They differ by more than 1e-4.")


def its_pooling_fits(make: Make) -> None:
    """Frames can be pooled as `default_pooling`, `cls_tokens` and `patch_bands` say."""
    encoder = make()
    frames_TD = encoder.encode(sound(encoder, 1, encoder.min_samples)).features_BLTD[0, 0]
    vector_P = _pooled(encoder, frames_TD)
    require(bool(np.isfinite(vector_P).all()), "It is not finite.")


def a_spectrogram_is_as_good_as_its_sound(make: Make) -> None:
    """Where it takes spectrograms: those of its front end give the features of the waveform, to the last bit."""
    encoder = make()
    if not encoder.takes_spectrograms:
        require_refusal(lambda: encoder.spectrogram(sound(encoder, 1, encoder.min_samples)), "It gives a spectrogram.")
        require_refusal(encoder.front_end, "It has a front end.")
        return
    lengths_B = encoder.min_samples + encoder.sample_rate * np.array([2, 1]) // 2
    wave_BS = sound(encoder, 2, int(lengths_B.max()))
    clips = encoder.spectrogram(wave_BS, lengths_B)
    require([clip.samples for clip in clips] == lengths_B.tolist(), "Their clips are of other lengths.")
    for clip in clips:
        for window_FM in clip.windows:
            require(window_FM.ndim == 2 and window_FM.dtype == np.float32, f"A window is {window_FM.dtype}.")
    require(make().front_end() == encoder.front_end(), "Another one of the same kind has another front end.")
    cut = replace(clips[0], windows=tuple(window_FM[:-1] for window_FM in clips[0].windows))
    require_refusal(lambda: encoder.encode_spectrogram([cut]), "Spectrograms that lack a frame are taken.")
    expected, embedding = encoder.encode(wave_BS, lengths_B), encoder.encode_spectrogram(clips)
    require(expected.layers == embedding.layers, f"They are of {embedding.layers}.")
    require(np.array_equal(expected.lengths_B, embedding.lengths_B), f"They have {embedding.lengths_B} frames.")
    require(np.array_equal(expected.features_BLTD, embedding.features_BLTD), "They give other features.")


def what_is_not_there_is_refused(make: Make) -> None:
    """ValueError for a layer that it does not have, and for a waveform shorter than `min_samples`."""
    encoder = make()
    wave_BS = sound(encoder, 1, encoder.min_samples)
    require_refusal(lambda: encoder.encode(wave_BS, layers=("no such layer",)), "The layer was taken.")
    if encoder.min_samples > 1:
        require_refusal(lambda: encoder.encode(wave_BS[:, :-1]), "The waveform was taken.")


def pooled_difference(
    encoder: Encoder, reference: Encoder, waveform_BS: Float32, layers: Sequence[str] | None = None
) -> float:
    """Largest difference of a pooled vector of two encoders that should be one, such as a network and its export.

    Frames are pooled with each encoder's class tokens and bands: by the default pooling of `reference`, by mean and
    deviation, and by class tokens and bands where `reference` has them. inf where only one can be pooled so.
    """
    poolings = {reference.default_pooling, "mean", "std"}
    poolings |= {"cls"} if reference.cls_tokens else set()
    poolings |= {"bands:mean"} if reference.patch_bands > 1 else set()
    largest = 0.0
    for layer in layers or (reference.default_layer,):
        ours, theirs = (each.encode(waveform_BS, layers=(layer,)) for each in (encoder, reference))
        for pooling in sorted(poolings):
            for row in range(len(waveform_BS)):
                frames = [each.features_BLTD[row, 0, : int(each.lengths_B[row])] for each in (ours, theirs)]
                expected_P = _pooled(reference, frames[1], pooling)
                try:
                    vector_P = _pooled(encoder, frames[0], pooling)
                except ValueError:
                    return float("inf")
                if vector_P.shape != expected_P.shape:
                    return float("inf")
                largest = max(largest, float(np.abs(vector_P - expected_P).max()))
    return largest


def check_pooled_alike(
    encoder: Encoder,
    reference: Encoder,
    samples: Sequence[int],
    *,
    layers: Sequence[str] | None = None,
    tolerance: float = 1e-3,
) -> None:
    """Raise AssertionError unless pooled vectors of clips of so many samples equal those of another encoder.

    See `pooled_difference`.
    """
    for length in samples:
        difference = pooled_difference(encoder, reference, sound(reference, 2, length), layers)
        require(difference <= tolerance, f"Pooled vectors of {length} samples differ by {difference:.3g}.")


#: every check, the quick ones first
CHECKS: tuple[Callable[[Make], None], ...] = (
    attributes_are_valid,
    features_have_the_expected_form,
    every_layer_can_be_asked_for,
    the_same_sound_is_the_same,
    padding_is_not_heard,
    its_pooling_fits,
    a_spectrogram_is_as_good_as_its_sound,
    what_is_not_there_is_refused,
)


def sound(encoder: Encoder, clips: int, samples: int) -> Float32:
    """(clips, samples) tones in noise, each clip of its own pitch."""
    rng = np.random.default_rng(0)
    pitch_B1 = 200.0 * (1 + np.arange(clips)[:, None])
    tone_BS = np.sin(2 * np.pi * pitch_B1 * np.arange(samples) / encoder.sample_rate)
    return np.asarray(0.1 * tone_BS + 0.02 * rng.normal(size=(clips, samples)), dtype=np.float32)


def _pooled(encoder: Encoder, frames_TD: Float32, pooling: str | None = None) -> Float32:
    pooling = pooling or encoder.default_pooling
    return pool(frames_TD, pooling, cls_tokens=encoder.cls_tokens, patch_bands=encoder.patch_bands)


def _built(kind: type[Encoder], config: Mapping[str, Any], weights: Mapping[str, np.ndarray] | None) -> Encoder:
    return kind(**config, weights=weights) if kind.needs_weights else kind(**config)  # type: ignore[call-arg]
