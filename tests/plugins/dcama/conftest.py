"""The authors' checkpoint, recomputed from the fixtures' rules, and its import."""

from __future__ import annotations

from authors_fixtures import authors_fixtures
from authors_numbers import Authors

golden_folder, golden, authors_weights, authors_file, imported = authors_fixtures(
    Authors(
        matcher="dcama",
        backbone="resnet50",
        listing="weights_dcama_resnet50.tsv",
        numbers="dcama_resnet50",
        file="best_model_{}.pt",
        bias="model.mixer3.2.bias",
    )
)
