"""How far one engine's vectors are from another's. Imports numpy alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from corpus.types import Vectors

NEIGHBOURS = 10


def loss_of(exact: Vectors, other: Vectors) -> dict[str, float]:
    """How far vectors are from the exact ones: cosines, and the share of each text's nearest ten that are the same."""
    found = cosines(exact, other)
    count = min(NEIGHBOURS, len(exact) - 1)
    nearest = [np.argsort(-(rows @ rows.T - 2 * np.eye(len(rows))), axis=1)[:, :count] for rows in (exact, other)]
    same = [len(set(first.tolist()) & set(second.tolist())) / count for first, second in zip(*nearest, strict=True)]
    return {
        "texts": len(exact),
        "mean_cosine": round(float(found.mean()), 5),
        "least_cosine": round(float(found.min()), 5),
        f"top_{NEIGHBOURS}_overlap": round(float(np.mean(same)), 3),
    }


def cosines(first: Vectors, second: Vectors) -> NDArray[np.float64]:
    """The cosine of each row with the same row of the other. Shapes: (n, dim) both, rows unit length."""
    products: NDArray[np.float64] = np.einsum("ij,ij->i", first.astype(np.float64), second.astype(np.float64))
    return products
