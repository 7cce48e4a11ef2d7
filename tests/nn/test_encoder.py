import torch

from scoremd.force_field import ForceField
from scoremd.nn.energy import NetworkConfig
from tests.models import alanine_dipeptide, random_network
from tests.nn.test_energy import coordinates, distinct, levels

PARTS = ("bead", "pair_sum", "pair_product", "torsion", "molecule", "bead_factor", "torsion_factor")


def test_an_untrained_encoder_changes_nothing_and_a_trained_one_reaches_all_of_a_molecule():
    network, x, lam = random_network(6, encoder_width=8), coordinates(6), levels(1.0)
    found = {}
    for name in ("none", *PARTS):
        for part, layer in network.encoder.named_children():
            if part in PARTS:
                for p in layer.parameters():
                    torch.nn.init.normal_(p) if part == name else torch.nn.init.zeros_(p)
        found[name] = network(x, lam, distinct(6))
    network.encoder = None
    without = network(x, lam, distinct(6))
    torch.testing.assert_close(found.pop("none"), without)
    assert {name: bool((q - without).abs().min() > 1e-6) for name, q in found.items()} == dict.fromkeys(PARTS, True)


def test_each_factor_reaches_its_layer():
    network, x, lam = random_network(6, encoder_width=8), coordinates(6), levels(1.0)
    encoder = network.encoder
    for p in encoder.parameters():
        torch.nn.init.zeros_(p)
    without = network(x, lam, distinct(6))
    for layer, splits in ((encoder.bead_factor, encoder.bead_splits), (encoder.torsion_factor, encoder.torsion_splits)):
        for part in layer.bias.detach().split(splits):
            part.fill_(0.5)
            assert float((network(x, lam, distinct(6)) - without).detach().abs().min()) > 1e-6
            part.zero_()


def test_models_without_an_encoder_are_described_as_before_there_was_one(tmp_path):
    assert "encoder_width" not in NetworkConfig().model_dump(mode="json")
    assert NetworkConfig(encoder_width=8).model_dump(mode="json")["encoder_width"] == 8
    model = alanine_dipeptide()
    model.save(tmp_path / "model")
    assert "encoder" not in (tmp_path / "model" / "config.yaml").read_text()
    assert ForceField.load(tmp_path / "model").hash == model.hash
