"""Transfer of pre-training: 1-NN accuracy of the machine type on real clips of seven or more machine types.

    python benchmarks/machine_type.py

Each normal clip is compared with all others, level-normalised, by cosine distance of standardised embeddings.
"""

from __future__ import annotations

import csv
from collections import Counter

import numpy as np

from harken.core.errors import HarkenError
from harken.detection.neighbours import nearest
from harken.detection.space import standardisation
from harken.embeddings.embedder import make_spec
from harken.embeddings.extract import extract
from harken.encoders import create_encoder
from harken.encoders.checkpoints import load
from shared_folder import shared_folder


def main() -> None:
    corpus = shared_folder() / "corpus"
    with (corpus / "manifest.csv").open(newline="") as handle:
        rows = [
            row
            for row in csv.DictReader(handle)
            if row["dataset"] in {"dcase2020", "dcase2021", "dcase2023"} and row["label"] == "normal"
        ]
    # The slider has 75 training clips of one section: reduced to the number of the other machines.
    rows = [
        row
        for index, row in enumerate(rows)
        if not (row["machine"] == "slider" and row["split"] == "train" and index % 8)
    ]
    machines = np.array([row["machine"] for row in rows])
    print(f"{len(rows)} clips: {dict(Counter(machines.tolist()))}")
    print(f"{'encoder':<28} {'1-NN accuracy of the machine type':>34}")
    for name, checkpoint in (
        ("spectral", None), ("efficientat random", None), ("efficientat real", "efficientat-mn04-as"),
        ("yamnet random", None), ("yamnet real", "yamnet"),
    ):  # fmt: skip
        encoder = name.split()[0]
        try:
            weights = load(checkpoint).weights if checkpoint else None
        except HarkenError as error:
            print(f"{name:<28} {error}")
            continue
        if weights is None and encoder != "spectral":
            weights = dict(create_encoder(encoder).weights())
        spec = make_spec(encoder, sample_rate=16_000, channels=1, weights=weights)
        extracted = list(extract([corpus / row["file"] for row in rows], spec, weights))
        used = [index for index, item in enumerate(extracted) if item.features is not None]
        rows_ND = np.stack([item.features.embedding for item in extracted if item.features is not None]).astype(
            np.float64
        )
        mean_D, scale_D = standardisation(rows_ND)
        own_row = np.arange(len(used))
        z_ND = (rows_ND - mean_D) / scale_D
        neighbour_N = nearest(z_ND, z_ND, 1, metric="cosine", query_blocks_N=own_row, bank_blocks_M=own_row)[1][:, 0]
        correct = machines[used][neighbour_N] == machines[used]
        print(f"{name:<28} {correct.mean():34.3f}", flush=True)


if __name__ == "__main__":
    main()
