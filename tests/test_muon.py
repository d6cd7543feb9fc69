"""Muon: its matrices become rotations, the rest is Adam. Chapter 14."""

import torch
from torch import nn

from ddpm_core.workshop.muon import Muon, orthogonalised


def test_singular_values_come_near_1_and_directions_stay(generator):
    for shape in ((6, 20), (20, 6), (8, 8)):
        matrix = torch.randn(*shape, generator=generator) * 1e-3
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        found = u.T @ orthogonalised(matrix) @ v.T
        values = found.diag()
        assert values.min() > 0.5 and values.max() < 1.3
        off = (found - values.diag()).abs().max()
        assert off < 1e-4


def test_vectors_take_the_steps_of_adam(generator):
    ours, adams = (nn.Parameter(torch.ones(5)) for _ in range(2))
    optimizers = Muon([ours], 0.1), torch.optim.Adam([adams], 0.1)
    for _ in range(4):
        gradient = torch.randn(5, generator=generator)
        for p, optimizer in zip((ours, adams), optimizers, strict=True):
            p.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, adams)


def test_a_kernel_is_a_matrix_whose_step_has_the_size_of_adams(generator):
    p = nn.Parameter(torch.zeros(16, 8, 3, 3).to(memory_format=torch.channels_last))
    optimizer = Muon([p], 0.1)
    p.grad = torch.randn(p.shape, generator=generator)
    optimizer.step()
    flat = p.detach().flatten(1)
    values = torch.linalg.svdvals(flat) / (0.1 * 0.2 * 72**0.5)
    assert values.min() > 0.5 and values.max() < 1.3
    assert 0.1 * 0.1 < flat.square().mean().sqrt() < 0.1 * 0.3
    assert torch.sum(flat * p.grad.flatten(1)) < 0  # downhill


def test_it_minimises_and_its_state_can_be_saved(generator):
    net = nn.Linear(4, 4, bias=False)
    wanted = torch.linalg.qr(torch.randn(4, 4, generator=generator)).Q
    optimizer = Muon(net.parameters(), 0.05)
    for k in range(200):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - k / 200)
        (net.weight - wanted).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(net.weight, wanted, atol=0.02, rtol=0)
    again = Muon(net.parameters(), 0.05)
    again.load_state_dict(optimizer.state_dict())
    state = again.state[net.weight]["momentum"]
    torch.testing.assert_close(state, optimizer.state[net.weight]["momentum"])
