"""Space in which distances between clips are measured: raw, standardised, or whitened with domain shifts discounted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
SpaceName = Literal["whitened", "standard", "raw"]

#: a dimension that varies by less than this, relative to its values, is constant: embeddings are float32, sums round
RESOLUTION = 1e-6
#: rows of one matrix product: its shape chooses the kernel, and so the last bits
_BLOCK = 8
#: rows that are mapped at a time
_CHUNK = 128 * _BLOCK


def standardisation(bank_ND: Float64, floor: float = 0.1) -> tuple[Float64, Float64]:
    """Mean and scale (D,) of each dimension.

    `floor` times the root mean square of all standard deviations is added to each in quadrature: almost constant
    dimensions would otherwise turn rounding noise into distance. Where all are constant, the scale is 1.
    """
    mean_D = bank_ND.mean(axis=0)
    deviation_D = bank_ND.std(axis=0)
    # The mean of equal numbers need not be that number: their deviation is rounding, not zero.
    deviation_D[deviation_D <= RESOLUTION * np.abs(mean_D)] = 0.0
    typical = float(np.sqrt(np.mean(deviation_D**2)))
    scale_D = np.sqrt(deviation_D**2 + (floor * typical) ** 2)
    return mean_D, np.where(scale_D > 0, scale_D, 1.0)


def without_rounding(bank_ND: Float64) -> Float64:
    """(N, D) with one value, that of the first row, in dimensions that vary by `RESOLUTION` of it or less."""
    constant_D = np.ptp(bank_ND, axis=0) <= RESOLUTION * np.abs(bank_ND[0])
    return np.where(constant_D, bank_ND[0], bank_ND) if constant_D.any() else bank_ND


def scaling(bank_ND: Float64, space: str) -> tuple[Float64, Float64]:
    """Mean and scale (D,) of the space `standard`, or zeros and ones for `raw`.

    Raises ValueError for other spaces.
    """
    if space == "standard":
        return standardisation(bank_ND)
    if space != "raw":
        raise ValueError(f"unknown space {space!r}; choose standard or raw")
    return np.zeros(bank_ND.shape[1]), np.ones(bank_ND.shape[1])


@dataclass(frozen=True)
class Space:
    """Linear map of embeddings: z = (x - mean) / scale, then c z + B ((gain - c) * B^T z).

    basis_DR: R orthonormal directions with gains gain_R; other_gain: c, the gain of all other directions.
    """

    mean_D: Float64
    scale_D: Float64
    basis_DR: Float64
    gain_R: Float64
    other_gain: float

    def apply(self, rows_ND: Float64) -> Float64:
        """(clips, D) -> (clips, D); the result of a row is bitwise independent of the other rows."""
        if not len(self.gain_R):
            return np.asarray((rows_ND - self.mean_D) / self.scale_D)
        mapped_ND = np.empty(rows_ND.shape)
        step = _BLOCK if self._blocks_agree else 1
        for start in range(0, len(rows_ND), _CHUNK):
            rows = slice(start, start + _CHUNK)
            mapped_ND[rows] = self._turned((rows_ND[rows] - self.mean_D) / self.scale_D, step)
        return mapped_ND

    def _turned(self, z_ND: Float64, step: int) -> Float64:
        """c z + B ((gain - c) * B^T z), by products of `step` rows."""
        count, dimensions = z_ND.shape
        z_BSD = np.concatenate([z_ND, np.zeros((-count % step, dimensions))]).reshape(-1, step, dimensions)
        if self._matrix_DD is not None:
            return (z_BSD @ self._matrix_DD).reshape(-1, dimensions)[:count]
        along_BSR = z_BSD @ self.basis_DR
        along_BSR *= self.gain_R - self.other_gain
        return (self.other_gain * z_BSD + along_BSR @ self.basis_DR.T).reshape(-1, dimensions)[:count]

    @cached_property
    def _matrix_DD(self) -> Float64 | None:
        """The map of z as one matrix, where that is the smaller product."""
        dimensions, directions = self.basis_DR.shape
        return self.matrix() if 2 * directions > dimensions else None

    def matrix(self, power: int = 1) -> Float64:
        """(D, D) symmetric matrix that multiplies z, or its inverse for `power` -1."""
        dimensions = len(self.mean_D)
        base = self.other_gain**power
        return base * np.eye(dimensions) + (self.basis_DR * (self.gain_R**power - base)) @ self.basis_DR.T

    @cached_property
    def _blocks_agree(self) -> bool:
        """Whether a row's product has the same bits at each place in a block: BLAS has other kernels for last rows."""
        row_D = np.cos(np.arange(1, len(self.mean_D) + 1, dtype=np.float64) ** 2)
        turned_SD = self._turned(np.tile(row_D, (_BLOCK, 1)), _BLOCK)
        return bool(np.all(turned_SD == turned_SD[0]))


def least_stretch(space: Space, changed: Space) -> float:
    """Largest c by which all distances in `changed` are at least c times those in `space`; of the same dimensions."""
    ratio_D1 = (space.scale_D / changed.scale_D)[:, None]
    map_DD = changed.matrix() @ (ratio_D1 * space.matrix(-1))
    return float(np.sqrt(max(0.0, np.linalg.eigvalsh(map_DD.T @ map_DD)[0])))


def fit_space(bank_ND: Float64, domains_N: NDArray[np.str_], name: SpaceName) -> Space:
    """Fit a space to normal clips.

    `raw`: embeddings unchanged, as in most published systems, which use cosine distance.

    `standard`: each dimension scaled to unit variance.

    `whitened`: `standard`, then multiplied by C^(-p/2) with
        C = C_within + 1/G sum_g (m_g - m)(m_g - m)^T,    p = sqrt(n / (n + D)),
    where C_within is the covariance within domains, shrunk towards a multiple of the identity (Ledoit and Wolf 2004),
    m_g the mean of domain g of G and m the mean of those. Directions in which normal clips vary are attenuated, and
    so is the direction of a domain shift, of which ten target clips determine the mean but not the covariance
    (within-class covariance normalisation, Hatch et al. 2006, with the nuisance direction of Solomonoff et al. 2005).
    The power p depends on how well n clips determine a covariance of D dimensions: Mahalanobis distance for many
    clips, Euclidean distance for few.
    """
    if name not in ("raw", "standard", "whitened"):
        raise ValueError(f"unknown space {name!r}; choose raw, standard or whitened")
    count, dimensions = bank_ND.shape
    if name == "raw":
        return Space(np.zeros(dimensions), np.ones(dimensions), np.empty((dimensions, 0)), np.empty(0), 1.0)
    mean_D, scale_D = standardisation(bank_ND)
    if name == "standard":
        return Space(mean_D, scale_D, np.empty((dimensions, 0)), np.empty(0), 1.0)
    z_ND = (bank_ND - mean_D) / scale_D
    labels, domain_N = np.unique(domains_N, return_inverse=True)
    if 2 * len(labels) > count:
        # Domains of one clip have no within-domain variation.
        labels, domain_N = labels[:1], np.zeros(count, dtype=np.int64)
    means_GD = np.stack([z_ND[domain_N == g].mean(axis=0) for g in range(len(labels))])
    within_ND = z_ND - means_GD[domain_N]
    level = float(np.mean(within_ND**2))
    if level < RESOLUTION**2:
        return Space(mean_D, scale_D, np.empty((dimensions, 0)), np.empty(0), 1.0)
    shrinkage = max(ledoit_wolf_shrinkage(within_ND), 0.01)
    # C / level = A^T A + shrinkage * I, so the singular vectors of A are the eigenvectors of C.
    shift_GD = (means_GD - means_GD.mean(axis=0)) / np.sqrt(len(labels))
    rows_AD = np.concatenate([np.sqrt((1 - shrinkage) / count) * within_ND, shift_GD]) / np.sqrt(level)
    if len(rows_AD) < dimensions:
        square_R, left_AR = np.linalg.eigh(rows_AD @ rows_AD.T)
        kept = square_R > 1e-10 * max(float(square_R[-1]), 1e-300)
        square_R = square_R[kept]
        basis_DR = (rows_AD.T @ left_AR[:, kept]) / np.sqrt(square_R)
    else:
        square_R, basis_DR = np.linalg.eigh(rows_AD.T @ rows_AD)
        square_R = np.maximum(square_R, 0.0)
    power = float(np.sqrt(count / (count + dimensions)))
    gain_R = (square_R + shrinkage) ** (-power / 2)
    return Space(mean_D, scale_D, np.ascontiguousarray(basis_DR), gain_R, shrinkage ** (-power / 2))


def ledoit_wolf_shrinkage(centred_ND: Float64) -> float:
    """Weight in [0, 1] of the scaled identity, for centred rows: Ledoit and Wolf (2004), lemma 3.2 ff.

    Uses the smaller Gram matrix, so that ten clips of 10,000 dimensions are cheap.
    """
    count, dimensions = centred_ND.shape
    trace = float(np.sum(centred_ND**2)) / count
    gram = centred_ND @ centred_ND.T if count < dimensions else centred_ND.T @ centred_ND
    frobenius = float(np.sum(gram**2)) / count**2
    # d^2 = |S - mu I|^2 and b^2 = the error of S as an estimate, both times D.
    distance = frobenius - trace**2 / dimensions
    error = (float(np.sum(np.sum(centred_ND**2, axis=1) ** 2)) / count - frobenius) / count
    return float(np.clip(error / distance, 0.0, 1.0)) if distance > 0 else 1.0
