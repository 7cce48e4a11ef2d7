"""How noisy the gradient of the Fokker-Planck loss is: exact divergences of few points, or two random probes on many for the same work.

    python benchmarks/residual_noise.py dipeptides KS

The network that gives the forces, reference frames, noise levels as in training. A batch of 2 points along a whole basis is D + 1 scores
(28 for ten beads) and two energies each; 16 points with two probes are four scores and two energies each. Noise is the variance of the
gradient by all weights over batches; its mean, which is the same for both, is too small to be seen above it. Writes
`results/residual_noise.json`.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from results_file import write_results
from torch import Tensor

from scoremd.diffusion.fokker_planck import displaced_points, fokker_planck_loss, residual, residual_estimates, stencil
from scoremd.diffusion.losses import add_noise, stratified
from scoremd.force_field import ForceField
from scoremd.nn.score import energy_and_score
from scoremd.training.config import FokkerPlanckConfig
from scoremd.training.evaluation import AsWritten, Term

_EXACT, _PROBED = 2, 16


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("system")
    parser.add_argument("--batches", type=int, default=250)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    force_field = ForceField.load(a.model)
    bound, network = force_field.bind(a.system), force_field.experts[0]
    reference = bound.system.reference_ensemble()
    assert reference is not None
    clean = bound.scaled(torch.from_numpy(reference.positions))
    generator, space, (low, high) = torch.Generator().manual_seed(a.seed), bound.space, FokkerPlanckConfig().log_snr
    written, parameters = AsWritten(network), dict(network.named_parameters())
    weights = [p.requires_grad_() for p in parameters.values()]

    def energy(x: Tensor, log_snr: Tensor) -> Tensor:
        found: Tensor = network(x, log_snr, bound.molecule)
        return found

    def drawn(n: int) -> tuple[Tensor, Tensor]:
        log_snr = low + (high - low) * stratified(n, generator)
        frames = clean[torch.randint(len(clean), (n,), generator=generator)]
        return add_noise(frames, space.noise(n, generator), log_snr), log_snr

    def exact() -> Tensor:
        x, log_snr = drawn(_EXACT)
        directions = space.directions(_EXACT, generator)
        points, levels, copies = stencil(x, log_snr, directions)
        freedom = space.degrees_of_freedom
        form = residual(x, log_snr, directions, freedom)
        ((left, _),) = written.forms(parameters, [Term(points, levels, bound.molecule, copies, form)])
        return (left**2 / freedom).mean()

    def probed() -> Tensor:
        x, log_snr = drawn(_PROBED)
        probes = torch.stack([space.probe(_PROBED, generator) for _ in range(2)])
        _, scores = energy_and_score(energy, displaced_points(x, log_snr, probes), log_snr.repeat(4), create_graph=True)
        return fokker_planck_loss(
            residual_estimates(energy, scores, x, log_snr, probes, space.degrees_of_freedom), space.degrees_of_freedom
        )

    results: dict[str, Any] = {}
    kinds: dict[str, Callable[[], Tensor]] = {f"{_EXACT} points, whole basis": exact, f"{_PROBED} points, two probes": probed}
    for name, loss in kinds.items():
        values, gradients = [], []
        for _ in range(a.batches):
            value = loss()
            found = torch.autograd.grad(value, weights, allow_unused=True)
            gradients.append(torch.cat([q.flatten() for q in found if q is not None]))
            values.append(float(value.detach()))
        results[name] = {"loss": sum(values) / a.batches, "noise": float(torch.stack(gradients).var(0).sum())}
        print(f"{name}: loss {results[name]['loss']:.4g}, noise of the gradient {results[name]['noise']:.4g}")
    print(write_results("residual_noise", {"model": force_field.hash, "system": a.system, "batches": a.batches, "kinds": results}))


if __name__ == "__main__":
    main()
