"""Müller–Brown: does the energy that samples rightly also simulate rightly? Denoising, Fokker–Planck term, mixture over time.

    python benchmarks/mueller_brown.py --seeds 0 1 2

trains every variant on the same exact samples for the same number of steps, draws independent samples, runs Langevin dynamics with the
forces of the energy at t = 1e-5, and compares both with exact samples. The probability flow of each (ODE) is compared with the samples
(SDE), and weighed by its likelihood and the energy that simulates. Prints tables and writes results/mueller_brown.json and .png.
What is finished lies in a working folder and is not done again there. Takes about 8 minutes on one core for a seed.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from mueller_brown_plot import plot
from results_file import RESULTS, write_results
from torch import Tensor
from toy_training import SCHEDULE, Recipe, bind, compiled, log_snr, particle_space, train

from scoremd.analysis.histograms import histogram, js_divergence
from scoremd.analysis.metrics import compare_js, compare_pmf
from scoremd.diffusion.fokker_planck import exact_residual
from scoremd.diffusion.likelihood import flow_samples
from scoremd.diffusion.losses import add_noise
from scoremd.diffusion.samplers import ScoreFunction, second_order_sde
from scoremd.diffusion.schedule import SMALLEST_TIME
from scoremd.diffusion.time_mixture import TIME_BORDERS, TimeMixture
from scoremd.nn.perceptron import PerceptronEnergy, PerceptronScore
from scoremd.nn.score import energy_and_score
from scoremd.simulation.langevin import LangevinParameters, State, middle_step, thermal_velocities
from scoremd.systems import load_toy
from scoremd.toys import cell_integrals, toy_potential

VARIANTS = {
    "denoising": "denoising",
    "denoising, 2.5 x steps": "denoising for 2.5 times the steps, longer than the Fokker–Planck term takes",
    "denoising + FP": "denoising and Fokker–Planck term",
    "mixture": "three experts over time, denoising",
    "mixture + FP": "three experts over time, Fokker–Planck term on the last",
}
SETTINGS = {
    "data": 100_000,
    "width": 64,
    "mixture_width": 36,
    "layers": 3,
    "steps": 10_000,
    "batch": 256,
    "learning_rate": 4e-3,
    "fp_alpha": 0.3,
    "fp_points": 32,
    "samples": 50_000,
    "calls": 100,
    "flow_samples": 20_000,
    "flow_intervals": 48,
    "t_end": 1e-4,
    "t_simulation": SMALLEST_TIME,
    "replicas": 250,
    "simulation_steps": 20_000,
    "stride": 90,
    "reference": 200_000,
    "limits": [[-2.0, 1.3], [-0.7, 2.4]],
    "bins": 64,
}
#: Left of it are the two upper wells, right of it the lower two (exactly 21.8 %).
RIGHT = -0.2
SYSTEM = load_toy("mueller-brown")
POTENTIAL = toy_potential(SYSTEM)
SPACE = particle_space(2)


def train_variant(variant: str, seed: int, positions: Tensor) -> tuple[PerceptronEnergy, ScoreFunction]:
    """The energy that simulates, and the score that samples."""
    s, torch_seed = SETTINGS, 100 * seed
    mean, length = positions.mean((0, 1)), positions.std((0, 1))
    data = (positions - mean) / length
    alpha, mixture = (s["fp_alpha"] if "FP" in variant else 0.0), variant.startswith("mixture")
    steps = int(s["steps"] * (2.5 if "2.5" in variant else 1))

    def expert(kind: type, times: tuple[float, float], share: float, number: int) -> PerceptronEnergy | PerceptronScore:
        torch.manual_seed(torch_seed + number)
        network = kind(mean, length, s["mixture_width" if mixture else "width"], s["layers"])
        on = alpha if kind is PerceptronEnergy else 0.0
        recipe = Recipe(round(share * steps), s["batch"], s["learning_rate"], times, on, s["fp_points"])
        return train(network, data, recipe, torch_seed + number)

    if not mixture:
        energy = expert(PerceptronEnergy, (SMALLEST_TIME, 1.0), 1.0, 0)
        return energy, lambda x, lam: energy_and_score(energy, x, lam)[1]
    early, late = TIME_BORDERS
    first = expert(PerceptronScore, (early, 1.0), 1 / 6, 0)
    second = expert(PerceptronScore, (late, early), 1 / 6, 1)
    energy = expert(PerceptronEnergy, (SMALLEST_TIME, late), 2 / 3, 2)
    experts = [first, second, lambda x, lam: energy_and_score(energy, x, lam)[1]]
    return energy, TimeMixture(experts, [log_snr(early), log_snr(late)])


def draw_samples(score: ScoreFunction, energy: PerceptronEnergy, seed: int) -> Tensor:
    """Independent samples, (sample, 1, 2) positions."""
    grid = SCHEDULE.log_snr(SCHEDULE.steps(SETTINGS["calls"] - 1, SETTINGS["t_end"])).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        parts = [second_order_sde(score, SPACE, 5000, grid, generator) for _ in range(SETTINGS["samples"] // 5000)]
    return energy.positions(torch.cat(parts))


def follow_flow(score: ScoreFunction, energy: PerceptronEnergy, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Samples of the probability flow at the time of the forces, (sample, 2) positions, and their weights in the ensemble of the forces."""
    grid = SCHEDULE.log_snr(SCHEDULE.steps(SETTINGS["flow_intervals"], SETTINGS["t_simulation"])).float()
    with torch.no_grad():
        x, log_p = flow_samples(score, SPACE, SETTINGS["flow_samples"], grid, torch.Generator().manual_seed(seed))
        log_weight = (-energy(x, grid[-1:]) - log_p).double()
    return energy.positions(x)[:, 0].numpy(), torch.softmax(log_weight, 0).numpy()


def simulate(energy: PerceptronEnergy, start: Tensor, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Frames (frame, 2), the replica of each, and how many replicas were lost; forces are -kT grad E(alpha x, t = 1e-5)."""
    lam = torch.tensor([log_snr(SETTINGS["t_simulation"])])
    parameters = tuple(p.detach() for p in energy.parameters())
    call = compiled("score", energy, lambda p, x: energy_and_score(bind(energy, p), x, lam)[1].detach(), parameters, start)
    factor = SYSTEM.thermal_energy / energy.length

    def force(x: Tensor) -> tuple[Tensor, Tensor]:  # alpha is 1 - 5e-7 here
        return x.new_zeros(len(x)), factor * call(parameters, energy.scale(x))

    dynamics = LangevinParameters(SYSTEM.time_step, SYSTEM.friction, SYSTEM.thermal_energy, torch.tensor([[[SYSTEM.mass]]]))
    generator = torch.Generator().manual_seed(seed)
    state = State(start, thermal_velocities(dynamics, SPACE.noise(len(start), generator)), *force(start)[::-1])
    frames = []
    for k in range(SETTINGS["simulation_steps"]):
        state = middle_step(state, SPACE.noise(len(start), generator), force, dynamics)
        if (k + 1) % SETTINGS["stride"] == 0 and k >= SETTINGS["simulation_steps"] // 10:
            frames.append(state.positions[:, 0])
    x = torch.stack(frames).numpy()
    kept = np.isfinite(x).all((0, 2))
    replica = np.broadcast_to(np.arange(len(start)), x.shape[:2])
    return x[:, kept].reshape(-1, 2), replica[:, kept].ravel(), int((~kept).sum())


def counted(points: np.ndarray, groups: np.ndarray | None = None):
    return histogram(points, range=SETTINGS["limits"], bins=SETTINGS["bins"], groups=groups)


def exact_divergence(energy: PerceptronEnergy) -> float:
    """JS of the density of the energy that simulates from the exact one, by quadrature: no sampling, no floor."""
    lam = torch.tensor([log_snr(SETTINGS["t_simulation"])])

    def function(points: Tensor) -> Tensor:
        x = energy.scale(points.reshape(-1, 1, 2).float())
        return energy(x, lam).double().reshape(points.shape[:-1])

    exact = POTENTIAL.cell_probabilities(SETTINGS["limits"], SETTINGS["bins"])[:-1]
    with torch.no_grad():
        return float(js_divergence(cell_integrals(function, SETTINGS["limits"], SETTINGS["bins"]), exact))


def residual(energy: PerceptronEnergy, data: Tensor, seed: int) -> float:
    """Root mean square of the exact Fokker–Planck residual over log_snr of t = 0.1 to 1e-5."""
    generator = torch.Generator().manual_seed(seed)
    lam = torch.linspace(log_snr(0.1), log_snr(SMALLEST_TIME), 4000)
    x = add_noise(energy.scale(data[:4000]), SPACE.noise(4000, generator), lam)
    return float(exact_residual(energy, x, lam, SPACE.basis()).square().mean().sqrt())


def run(variant: str, seed: int, positions: Tensor, reference: np.ndarray) -> tuple[dict, np.ndarray]:
    """One variant and seed: its figures, and its counts of samples and simulation."""
    begun = time.process_time()
    energy, score = train_variant(variant, seed, positions)
    trained = time.process_time()
    samples = draw_samples(score, energy, seed)
    sampled = time.process_time()
    flowed, weights = follow_flow(score, energy, seed)
    begun_simulation = time.process_time()
    frames, replica, lost = simulate(energy, samples[: SETTINGS["replicas"]].clone(), seed)
    simulated = time.process_time()
    iid = samples[:, 0].numpy()
    sides = {"samples": counted(iid), "simulation": counted(frames, replica), "reference": counted(reference), "flow": counted(flowed)}
    entry = {
        "variant": variant,
        "seed": seed,
        "parameters": sum(p.numel() for p in energy.parameters()),
        "seconds": {
            "train": round(trained - begun, 1),
            "sample": round(sampled - trained, 1),
            "simulate": round(simulated - begun_simulation, 1),
        },
        "lost_replicas": lost,
        "simulation_frames": len(frames),
        "right": {
            "samples": float((iid[:, 0] > RIGHT).mean()),
            "simulation": float((frames[:, 0] > RIGHT).mean()),
            "flow": float((flowed[:, 0] > RIGHT).mean()),
            "flow, weighted": float(weights @ (flowed[:, 0] > RIGHT)),
        },
        "effective": float(1 / np.sum(weights**2) / len(weights)),
        "density_js": exact_divergence(energy),
        "residual": residual(energy, positions, seed),
    }
    for a, b in (
        ("samples", "reference"),
        ("simulation", "reference"),
        ("samples", "simulation"),
        ("flow", "reference"),
        ("flow", "samples"),
    ):
        js, pmf = (f(sides[a], sides[b], reference=sides["reference"]) for f in (compare_js, compare_pmf))
        entry[f"{a} vs {b}"] = {"js": js.__dict__, "pmf": pmf.__dict__}
    return entry, np.stack([sides["samples"].counts, sides["simulation"].counts])


def table(entries: list[dict], exact_right: float) -> str:
    """Markdown: mean and standard deviation over the seeds."""

    def cell(rows: list[dict], pick, digits: int = 4) -> str:
        values = [pick(row) for row in rows]
        spread = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
        return f"{np.mean(values):.{digits}f}{spread}"

    columns = ("samples vs reference", "simulation vs reference", "samples vs simulation")
    s = SETTINGS
    frames = entries[0][columns[0]]["js"]["frames"]
    lines = [
        f"JS in nats, {s['bins']} x {s['bins']} cells on x {s['limits'][0]}, y {s['limits'][1]}, and one for the outside:",
        f"value (excess over the floor), at {frames} frames a side; mean ± standard deviation over seeds.",
        f"Density: JS of exp(-E(x, 1e-5)) from the exact density by quadrature. x > {RIGHT}: exactly {exact_right:.3f}.",
        "",
        "| variant | " + " | ".join(columns) + " | floor | density | x > -0.2: samples | simulation | rms FP residual | training, CPU s |",
        "|---|" + "---|" * 9,
    ]
    for variant in VARIANTS:
        rows = [e for e in entries if e["variant"] == variant]
        if not rows:
            continue
        cells = [f"{cell(rows, lambda e, c=c: e[c]['js']['value'])} ({cell(rows, lambda e, c=c: e[c]['js']['excess'])})" for c in columns]
        cells += [
            cell(rows, lambda e: e[columns[0]]["js"]["floor"]).split(" ±")[0],
            cell(rows, lambda e: e["density_js"]),
            cell(rows, lambda e: e["right"]["samples"], 3),
            cell(rows, lambda e: e["right"]["simulation"], 3),
            cell(rows, lambda e: e["residual"], 3),
            f"{np.median([e['seconds']['train'] for e in rows]):.0f}",
        ]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    lines += ["", "PMF error in (kT)^2, value (floor):", "", "| variant | " + " | ".join(columns) + " |", "|---|---|---|---|"]
    for variant in VARIANTS:
        rows = [e for e in entries if e["variant"] == variant]
        if rows:
            cells = [
                f"{cell(rows, lambda e, c=c: e[c]['pmf']['value'], 3)} ({np.mean([e[c]['pmf']['floor'] for e in rows]):.3f})"
                for c in columns
            ]
            lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    lines += [
        "",
        f"Probability flow (ODE), {s['flow_samples']} samples: excess of JS; effective sample size, as a share; x > {RIGHT}:",
        "",
        "| variant | ODE vs reference | ODE vs SDE | effective | x > -0.2: ODE | ODE, weighted | simulation |",
        "|---|" + "---|" * 6,
    ]
    for variant in VARIANTS:
        rows = [e for e in entries if e["variant"] == variant]
        if rows:
            cells = [cell(rows, lambda e, c=c: e[c]["js"]["excess"]) for c in ("flow vs reference", "flow vs samples")]
            cells.append(cell(rows, lambda e: e["effective"], 2))
            cells += [cell(rows, lambda e, c=c: e["right"][c], 3) for c in ("flow", "flow, weighted", "simulation")]
            lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "scoremd-mueller-brown")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.work.mkdir(exist_ok=True)
    path, counts_path = arguments.work / "entries.json", arguments.work / "counts.npz"
    generator = torch.Generator().manual_seed(12345)
    positions = POTENTIAL.sample(SETTINGS["data"], generator).float()
    reference = POTENTIAL.sample(SETTINGS["reference"], generator)[:, 0].numpy()
    exact = POTENTIAL.cell_probabilities(SETTINGS["limits"], SETTINGS["bins"])
    exact_right = float(POTENTIAL.cell_probabilities([[RIGHT, 3.0], [-3.0, 4.5]], 128)[:-1].sum())

    stored = json.loads(path.read_text()) if path.exists() else {}
    same = stored.get("settings") == SETTINGS and counts_path.exists()
    entries, counts = (stored["entries"], dict(np.load(counts_path))) if same else ([], {})
    done = {(e["variant"], e["seed"]) for e in entries}
    for seed in arguments.seeds:
        for variant in arguments.variants:
            if (variant, seed) in done:
                continue
            entry, counts[f"{variant}/{seed}"] = run(variant, seed, positions, reference)
            entries.append(entry)
            print(
                f"{variant}, seed {seed}: simulation excess {entry['simulation vs reference']['js']['excess']:.4f},"
                f" density {entry['density_js']:.4f}, {entry['seconds']}",
                flush=True,
            )
            path.write_text(json.dumps({"settings": SETTINGS, "entries": entries}))
            np.savez_compressed(counts_path, **counts)
    print(table(entries, exact_right))
    print(write_results("mueller_brown", {"settings": SETTINGS, "exact_right": exact_right, "entries": entries}))
    plot(RESULTS / "mueller_brown.png", exact, counts, SETTINGS, list(VARIANTS))


if __name__ == "__main__":
    main()
