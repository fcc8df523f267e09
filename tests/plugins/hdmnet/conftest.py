"""The authors' checkpoint, recomputed from the fixtures' rules, and its import."""

from __future__ import annotations

from authors_fixtures import authors_fixtures
from authors_numbers import Authors

golden_folder, golden, authors_weights, authors_file, imported = authors_fixtures(
    Authors(
        matcher="hdmnet",
        backbone="resnet50-psp",
        listing="weights_hdmnet_resnet50_1shot.tsv",
        numbers="hdmnet_resnet50_pascal",
        file="train_epoch_{}.pth",
        bias="transformer.mix_transformer.cls.4.bias",
        epoch=True,
    )
)
