"""The authors' numbers; those of the complete network are not beside the checkout."""

from __future__ import annotations

from authors_fixtures import authors_fixtures
from authors_numbers import Authors

golden_folder, *_ = authors_fixtures(
    Authors(
        matcher="hsnet",
        backbone="resnet50",
        listing="weights_hsnet_hpn_learner_resnet50.tsv",
        numbers="hsnet",
        file="best_model_{}.pt",
        bias="hpn_learner.decoder2.2.bias",
    )
)
