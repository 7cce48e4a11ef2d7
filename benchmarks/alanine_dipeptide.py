"""The shipped model of alanine dipeptide: samples, simulation and reference, for several seeds.

    python benchmarks/alanine_dipeptide.py --seeds 0 1 2

Each seed draws the samples, runs the replicas from them at 2 fs, drops the first tenth, and compares. Runs lie in a working folder and
go on where they were interrupted: seeds can run in processes of their own and are put together by a last call with all of them.
"""

import torch
from emulation_options import emulation_parser
from results_file import write_results

from scoremd.emulation import emulate
from scoremd.force_field import ForceField
from scoremd.simulation.engine import SimulationSettings
from scoremd.systems import load_system


def main() -> None:
    """Run all seeds and print a table."""
    parser = emulation_parser("alanine-dipeptide", 20000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    force_field, system = ForceField.load(a.model), load_system("ALDP")
    setting = {"model": force_field.hash, "samples": a.samples, "replicas": a.replicas, "ns": a.ns}
    results = {}
    print(f"{a.samples} samples; {a.replicas} replicas of {a.ns} ns at 2 fs; model {force_field.hash}")
    print(f"{'seed':>4} {'comparison':24} {'frames':>7} {'JS':>7} {'floor':>7} {'excess':>8} {'interval':>18} {'phi > 0':>8}")
    for seed in a.seeds:
        settings = SimulationSettings(a.ns, a.replicas, seed)
        folder = a.work / f"{force_field.hash}-{seed}-{a.samples}-{a.replicas}-{a.ns}"
        comparison = emulate(force_field, system, folder, samples=a.samples, settings=settings, command="benchmark").comparison
        content = results[str(seed)] = comparison.to_dict()
        for title, pair in content["comparisons"].items():
            js = pair["js_nats"]
            population = content["ensembles"][title.split()[0]]["populations"]["phi > 0"]["value"]
            interval = f"[{js['low']:+.4f}, {js['high']:+.4f}]"
            row = f"{js['frames']:7d} {js['value']:7.4f} {js['floor']:7.4f} {js['excess']:+8.4f} {interval:>18} {population:8.4f}"
            print(f"{seed:4d} {title:24} {row}", flush=True)
        print(f"     lost replicas: {content['lost_replicas']}")
    print(write_results("alanine_dipeptide", setting | {"seeds": results}))


if __name__ == "__main__":
    main()
