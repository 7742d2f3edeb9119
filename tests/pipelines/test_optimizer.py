"""AdamW without torch's compiler is torch's AdamW."""

import subprocess
import sys

import torch
from torch import nn

from pipelines.optimizer import AdamW


def trained(optimizer_class: type[torch.optim.AdamW], fused: bool) -> tuple[nn.Module, object]:
    torch.manual_seed(0)
    model = nn.LSTM(3, 5, num_layers=2)
    optimizer = optimizer_class(model.parameters(), lr=0.01, weight_decay=0.1, fused=fused)
    for step in range(7):
        optimizer.zero_grad()
        optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
        output, _ = model(torch.randn(4, 2, 3))
        torch.autograd.backward(output.square().sum())
        optimizer.step()
    return model, optimizer.state_dict()["state"]


def test_weights_and_moments_are_those_of_torch_bit_by_bit() -> None:
    for fused in (False, True):
        ours, our_moments = trained(AdamW, fused)
        theirs, their_moments = trained(torch.optim.AdamW, fused)
        torch.testing.assert_close(ours.state_dict(), theirs.state_dict(), rtol=0, atol=0)
        torch.testing.assert_close(our_moments, their_moments, rtol=0, atol=0)


def test_no_gradient_is_traced_through_a_step() -> None:
    model = nn.Linear(2, 1)
    optimizer = AdamW(model.parameters(), lr=0.1)
    torch.autograd.backward(model(torch.ones(1, 2)).sum())
    optimizer.step()
    assert all(parameter.is_leaf for parameter in model.parameters())


def test_a_step_and_a_restored_state_load_no_compiler() -> None:
    program = """
import sys, torch
from pipelines.optimizer import AdamW
model = torch.nn.LSTM(1, 2)
optimizer = AdamW(model.parameters(), lr=0.1, fused=True)
model(torch.ones(1, 1, 1))[0].sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
assert "torch._dynamo" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
