import torch
from e3nn import o3
from e3nn.util.test import assert_equivariant

from scoremd.nn.interaction import InteractionBlock, feature_irreps, unflatten
from scoremd.nn.pairs import pair_table, partners

SCALARS, VECTORS, WIDTH, BEADS = 5, 3, 6, 5


def block(*, first=False, last=False):
    torch.manual_seed(3)
    return InteractionBlock(SCALARS, VECTORS, WIDTH, first=first, last=last).double()


def as_irreps_function(layer):
    """The block as a function of e3nn's flat features and positions, batched over molecules."""
    table = pair_table(BEADS)
    radial = torch.randn(1, 2, BEADS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    envelope = torch.rand(1, 2, BEADS, dtype=torch.float64, generator=torch.Generator().manual_seed(2))

    def function(flat, positions):
        features = unflatten(flat.view(-1, BEADS, flat.shape[-1] // BEADS), SCALARS, VECTORS)
        x = positions.view(-1, BEADS, 3)
        edge = partners(x, table) - x[:, None]
        unit = (edge / edge.norm(dim=-1, keepdim=True))[..., None]
        return layer(features, unit, radial, envelope, table, torch.full((1, 1, 1), BEADS**-0.5)).flatten().flatten(1)

    return function


def molecule_irreps(irreps):
    """Irreps of all beads, one after the other, not simplified."""
    return o3.Irreps([item for _ in range(BEADS) for item in irreps])


def test_irreps_of_a_block_are_those_it_declares():
    torch.set_default_dtype(torch.float64)
    try:
        irreps = molecule_irreps(feature_irreps(SCALARS, VECTORS))
        for last in (False, True):
            assert_equivariant(
                as_irreps_function(block(last=last)),
                args_in=[torch.randn(4, irreps.dim), torch.randn(4, 3 * BEADS)],
                irreps_in=[irreps, o3.Irreps(f"{BEADS}x1o")],
                irreps_out=irreps,
                tolerance=1e-9,
            )
    finally:
        torch.set_default_dtype(torch.float32)


def test_irreps_of_a_first_block_are_those_it_declares():
    """It takes scalars alone."""
    torch.set_default_dtype(torch.float64)
    try:
        function = as_irreps_function(block(first=True))

        def from_scalars(scalars, positions):
            s = scalars.view(-1, BEADS, SCALARS)
            return function(torch.cat([s, s.new_zeros(*s.shape[:2], 7 * VECTORS)], -1).flatten(1), positions)

        assert_equivariant(
            from_scalars,
            args_in=[torch.randn(4, BEADS * SCALARS), torch.randn(4, 3 * BEADS)],
            irreps_in=[o3.Irreps(f"{BEADS * SCALARS}x0e"), o3.Irreps(f"{BEADS}x1o")],
            irreps_out=molecule_irreps(feature_irreps(SCALARS, VECTORS)),
            tolerance=1e-9,
        )
    finally:
        torch.set_default_dtype(torch.float32)


def test_wrong_parities_are_noticed():
    """The check of the other test can fail: with the vectors' parities exchanged it does."""
    torch.set_default_dtype(torch.float64)
    try:
        wrong = molecule_irreps(o3.Irreps(f"{SCALARS}x0e + {VECTORS}x0o + {VECTORS}x1e + {VECTORS}x1o"))
        try:
            assert_equivariant(
                as_irreps_function(block()),
                args_in=[torch.randn(4, wrong.dim), torch.randn(4, 3 * BEADS)],
                irreps_in=[wrong, o3.Irreps(f"{BEADS}x1o")],
                irreps_out=wrong,
                tolerance=1e-9,
            )
        except AssertionError:
            return
        raise AssertionError("exchanged parities were not noticed")
    finally:
        torch.set_default_dtype(torch.float32)


def test_flatten_and_unflatten_are_inverses():
    flat = torch.randn(2, BEADS, feature_irreps(SCALARS, VECTORS).dim)
    assert torch.equal(unflatten(flat, SCALARS, VECTORS).flatten(), flat)
