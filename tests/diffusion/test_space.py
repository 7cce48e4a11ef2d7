"""Noise and probes of a space: right covariance, nothing on missing beads, nothing in the centre where it is fixed."""

import pytest
import torch

from scoremd.diffusion.space import Space

FULL = torch.ones(1, 5, dtype=torch.float64)
PADDED = torch.tensor([[1, 1, 0, 1, 0]], dtype=torch.float64)


@pytest.fixture(params=[(FULL, True), (PADDED, True), (FULL, False), (PADDED, False)], ids=str)
def space(request):
    mask, centred = request.param
    return Space(mask, 3, centred)


def projector(space):
    b = space.basis().flatten(1)
    return b.T @ b


def test_basis_is_orthonormal_and_complete(space):
    b = space.basis().flatten(1)
    d = int(space.degrees_of_freedom)
    torch.testing.assert_close(b @ b.T, torch.eye(d, dtype=torch.float64))
    x = torch.randn(7, 5, 3, dtype=torch.float64)
    torch.testing.assert_close((x.flatten(1) @ projector(space)).view_as(x), space.project(x))


def test_probe_has_the_length_of_the_trace(space, generator):
    v = space.probe(500, generator)
    torch.testing.assert_close((v**2).sum((1, 2)), space.degrees_of_freedom.expand(500))


@pytest.mark.parametrize("kind", ["probe", "noise"])
def test_covariance_is_the_identity_of_the_space(space, kind, generator):
    n = 40_000
    v = getattr(space, kind)(n, generator).flatten(1)
    torch.testing.assert_close(v.T @ v / n, projector(space), rtol=0, atol=6 * (2 / n) ** 0.5)


@pytest.mark.parametrize("kind", ["probe", "noise"])
def test_vectors_stay_in_the_space(space, kind, generator):
    v = getattr(space, kind)(50, generator)
    torch.testing.assert_close(space.project(v), v)
    assert (v[:, space.mask[0] == 0] == 0).all()
    if space.centred:
        torch.testing.assert_close(v.sum(1), torch.zeros(50, 3, dtype=torch.float64))


def test_projection_is_idempotent(space):
    x = space.project(torch.randn(6, 5, 3, dtype=torch.float64))
    torch.testing.assert_close(space.project(x), x)


def test_masks_of_different_molecules(generator):
    """One row of the mask for each member of the batch."""
    space = Space(torch.cat([FULL, PADDED]), 3)
    v = space.probe(2, generator)
    torch.testing.assert_close((v**2).sum((1, 2)), torch.tensor([12.0, 6.0], dtype=torch.float64))
    assert space.degrees_of_freedom.tolist() == [12, 6]
    assert (v[1, [2, 4]] == 0).all()


def test_degrees_of_freedom_without_a_centre(plane):
    assert plane.degrees_of_freedom.tolist() == [2]
    assert plane.noise(3, None).shape == (3, 1, 2)


@pytest.mark.parametrize("centred", [True, False])
def test_directions_are_a_basis_of_each_molecule(centred, generator):
    """Also where the first bead is missing."""
    masks = torch.cat([FULL, PADDED, PADDED.flip(1), 1 - PADDED])
    space = Space(masks, 3, centred)
    vectors = space.directions(4, generator)
    for k, mask in enumerate(masks):
        projectors = vectors[:, k].flatten(1)
        torch.testing.assert_close(projectors.T @ projectors, projector(Space(mask[None], 3, centred)))
        present = (projectors != 0).any(1)
        lengths = projectors.norm(dim=1)
        torch.testing.assert_close(lengths, present.to(lengths))
        assert int(present.sum()) == int(space.degrees_of_freedom[k])


@pytest.mark.parametrize("centred", [True, False])
def test_the_number_of_directions_does_not_depend_on_which_beads_are_missing(centred, generator):
    """Compiled steps take batches of one shape only."""
    numbers = {len(Space(mask, 3, centred).directions(2, generator)) for mask in (FULL, PADDED, PADDED.flip(1))}
    assert numbers == {12 if centred else 15}
