"""Small untrained models that tests share."""

from dataclasses import replace

import numpy as np
import torch

from scoremd.data import Ensemble, read_ensemble, write_ensemble
from scoremd.description import ModelDescription
from scoremd.force_field import ForceField
from scoremd.nn.energy import MoleculeEnergy, NetworkConfig
from scoremd.nn.molecule import MoleculeBatch
from scoremd.statistics import pair_statistics
from scoremd.systems import load_system

SMALL = {"scalars": 6, "vectors": 4, "radial_basis": 6, "radial_width": 8, "torsion_width": 8}


def random_network(n_beads, *, achiral=False, torsions=True, layers=2, seed=0, frozen_above=3.0, encoder_width=0, cutoff=None):
    """A network with random weights in float64 whose beads all differ."""
    torch.manual_seed(seed)
    later = {"frozen_above": frozen_above, "encoder_width": encoder_width, "cutoff": cutoff}
    config = NetworkConfig(**SMALL, layers=layers, achiral=achiral, **later)
    n_pairs = n_beads * (n_beads - 1) // 2
    statistics = torch.cat([torch.rand(1 + n_pairs, 2) + 0.5, (torch.rand(1 + n_pairs, 1) < 0.5).float()], 1)
    chosen = torch.tensor([[[0, 1, 2, 3]]]) if torsions else torch.zeros(0, 0, 4, dtype=torch.long)
    network = MoleculeEnergy(config, n_beads, n_beads + 1, 3, statistics, chosen).double()
    for p in network.encoder.parameters() if encoder_width else ():
        torch.nn.init.normal_(p, std=0.3)  # parts of it are zero at the start
    return network


def molecule(bead, pair, residue=None):
    """One row of types."""
    residue = [1] * len(bead) if residue is None else residue
    return MoleculeBatch(torch.tensor([bead]), torch.tensor([residue]), pair[None])


def alanine_dipeptide(seed=0, time_ranges=((0.0, 1.0),)):
    """An untrained model of alanine dipeptide with the right statistics."""
    system = load_system("ALDP")
    ensemble = system.reference_ensemble()
    torch.manual_seed(seed)
    description = ModelDescription(
        name="test",
        title="test",
        systems=(system.name,),
        temperature=system.temperature,
        length_scale=6.0,
        slots=system.beads,
        residue_names=tuple(system.residues),
        torsions=(system.torsions,),
        network=NetworkConfig(**SMALL),
        time_ranges=time_ranges,
    )
    statistics = pair_statistics([(6 * ensemble.positions[::100], list(range(5)))], 5)
    return ForceField(description, [description.make_network(statistics) for _ in time_ranges])


def dipeptide_folder(data, folder, frames=80):
    """A folder of the ensembles of KS and KG, with made-up forces, and of a file that is no ensemble; fewer frames of KG."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, n in (("KS", frames), ("KG", frames // 2)):
        ensemble = read_ensemble(data / f"{name}-small.h5").select(slice(n))
        forces = 500 * rng.standard_normal(ensemble.positions.shape)
        write_ensemble(folder / f"{name}.h5", replace(ensemble, forces=forces.astype(np.float32)))
    (folder / "README.md").write_text("not an ensemble")
    return folder


def small_ensemble(folder) -> Ensemble:
    """The ensemble with forces that is shipped for tests."""
    return read_ensemble(folder / "ALDP-small.h5")
