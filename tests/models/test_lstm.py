"""Contracts of `StackedLSTM`: it is torch's LSTM where there is one, else the equations' loop."""

import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from itertools import chain

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from models.lstm import BLOCK, StackedLSTM, main, run_filled_up, stack_states

States = tuple[Sequence[Tensor], Sequence[Tensor]]
DirectionWeights = list[Tensor]  # weights of inputs and units, biases of inputs and units

THREE_ANSWERS = {
    "one layer of 128": (128,),
    "two layers of 64": (64, 64),
    "a layer of 64 and one of 128": (64, 128),
}
three_answers = pytest.mark.parametrize("widths", THREE_ANSWERS.values(), ids=THREE_ANSWERS.keys())
both_directions = pytest.mark.parametrize("bidirectional", [False, True], ids=["one way", "both"])
with_and_without_state = pytest.mark.parametrize("has_state", [False, True], ids=["zero", "state"])


def weights_of(lstm: nn.LSTM) -> list[list[DirectionWeights]]:
    """Return the weights of each layer, and in it of each direction."""
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    suffixes = ("", "_reverse") if lstm.bidirectional else ("",)
    return [
        [[getattr(lstm, f"{name}_l{layer}{suffix}") for name in names] for suffix in suffixes]
        for layer in range(lstm.num_layers)
    ]


def weights_of_stack(stack: StackedLSTM) -> list[list[DirectionWeights]]:
    runs: Iterable[nn.LSTM] = stack.runs  # type: ignore[assignment]
    return list(chain.from_iterable(map(weights_of, runs)))


def flat(nested: Iterable[Iterable[Iterable[Tensor]]]) -> list[Tensor]:
    return list(chain.from_iterable(chain.from_iterable(nested)))


def random_state(stack: StackedLSTM, num_windows: int, dtype: torch.dtype) -> States:
    def one_a_layer() -> list[Tensor]:
        return [
            torch.randn(stack.num_directions, num_windows, width, dtype=dtype, requires_grad=True)
            for width in stack.widths
        ]

    return one_a_layer(), one_a_layer()


def loop_over_steps(
    x: Tensor, weights: DirectionWeights, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output [B, L, U] of one direction of one layer, and its last h and c [B, U]."""
    weight_inputs, weight_units, bias_inputs, bias_units = weights
    outputs = []
    for step in range(x.shape[1]):
        gates = x[:, step] @ weight_inputs.T + bias_inputs + h @ weight_units.T + bias_units
        enter, keep, candidate, leave = gates.chunk(4, dim=1)
        c = torch.sigmoid(keep) * c + torch.sigmoid(enter) * torch.tanh(candidate)
        h = torch.sigmoid(leave) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs, dim=1), h, c


def loop_over_layers(stack: StackedLSTM, x: Tensor, state: States) -> tuple[Tensor, States]:
    """Run the stack's weights by the equations, one step of one direction of a layer at a time."""
    h_n, c_n = [], []
    for directions, h_0, c_0 in zip(weights_of_stack(stack), *state, strict=True):
        forward = loop_over_steps(x, directions[0], h_0[0], c_0[0])
        results = [forward]
        if stack.num_directions == 2:
            output, h, c = loop_over_steps(x.flip(1), directions[1], h_0[1], c_0[1])
            results.append((output.flip(1), h, c))
        outputs, last_h, last_c = zip(*results, strict=True)
        x = torch.cat(outputs, dim=2)
        h_n.append(torch.stack(last_h))
        c_n.append(torch.stack(last_c))
    return x, (h_n, c_n)


def zero_state(stack: StackedLSTM, num_windows: int, dtype: torch.dtype) -> States:
    zeros = [
        torch.zeros(stack.num_directions, num_windows, width, dtype=dtype) for width in stack.widths
    ]
    return zeros, zeros


def weighted_sum(tensors: Iterable[Tensor]) -> Tensor:
    """Return a sum in which every entry has another weight, so that no gradient is like another."""
    sums = [
        (tensor * torch.linspace(-1, 1, tensor.numel(), dtype=tensor.dtype).view_as(tensor)).sum()
        for tensor in tensors
    ]
    return torch.stack(sums).sum()


@with_and_without_state
@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["fused", "single layers"])
@both_directions
@pytest.mark.parametrize("width", [1, 16])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_equal_layers_with_copied_weights_are_torchs_lstm_in_outputs_and_gradients(
    num_layers: int, width: int, bidirectional: bool, dropout: float, has_state: bool
) -> None:
    theirs = nn.LSTM(3, width, num_layers, batch_first=True, bidirectional=bidirectional)
    ours = StackedLSTM(3, [width] * num_layers, bidirectional, dropout).eval()
    their_weights, our_weights = flat(weights_of(theirs)), flat(weights_of_stack(ours))
    for source, copy in zip(their_weights, our_weights, strict=True):
        copy.data.copy_(source.data)
    x = torch.randn(4, 7, 3, requires_grad=True)
    state = random_state(ours, 4, torch.float32) if has_state else None

    our_output, (our_h, our_c) = ours(x, state)
    their_state = state and (stack_states(state[0]), stack_states(state[1]))
    their_output, (their_h, their_c) = theirs(x, their_state)

    ours_out = [our_output, stack_states(our_h), stack_states(our_c)]
    theirs_out = [their_output, their_h, their_c]
    assert_close(ours_out, theirs_out)
    sources = [x, *(chain(*state) if state else ())]
    our_gradients = torch.autograd.grad(weighted_sum(ours_out), [*sources, *our_weights])
    their_gradients = torch.autograd.grad(weighted_sum(theirs_out), [*sources, *their_weights])
    assert_close(our_gradients, their_gradients, rtol=1e-5, atol=1e-5)


@with_and_without_state
@pytest.mark.parametrize("dropout", [0.0, 0.3], ids=["fused", "single layers"])
@both_directions
@pytest.mark.parametrize("widths", [(3, 5), (6, 2, 4), (4, 4, 7, 7, 2)], ids=str)
def test_layers_of_any_width_follow_the_equations_in_outputs_and_gradients(
    widths: tuple[int, ...], bidirectional: bool, dropout: float, has_state: bool
) -> None:
    stack = StackedLSTM(3, widths, bidirectional, dropout).double().eval()
    x = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    state = random_state(stack, 4, torch.float64) if has_state else None

    output, (h_n, c_n) = stack(x, state)
    loop_state = state or zero_state(stack, 4, torch.float64)
    loop_output, (loop_h, loop_c) = loop_over_layers(stack, x, loop_state)

    outputs, loop_outputs = [output, *h_n, *c_n], [loop_output, *loop_h, *loop_c]
    assert_close(outputs, loop_outputs)
    sources = [x, *(chain(*state) if state else ()), *stack.parameters()]
    gradients = torch.autograd.grad(weighted_sum(outputs), sources)
    assert_close(gradients, torch.autograd.grad(weighted_sum(loop_outputs), sources))


@three_answers
@both_directions
def test_the_three_answers_follow_the_equations(
    widths: tuple[int, ...], bidirectional: bool
) -> None:
    stack = StackedLSTM(1, widths, bidirectional).double()
    x = torch.randn(2, 5, 1, dtype=torch.float64)
    output, (h_n, c_n) = stack(x)
    loop_output, (loop_h, loop_c) = loop_over_layers(stack, x, zero_state(stack, 2, x.dtype))
    assert_close([output, *h_n, *c_n], [loop_output, *loop_h, *loop_c])


@three_answers
@both_directions
def test_the_three_answers_have_the_shapes_that_the_docstring_states(
    widths: tuple[int, ...], bidirectional: bool
) -> None:
    num_directions = 2 if bidirectional else 1
    stack = StackedLSTM(1, widths, bidirectional)
    output, (h_n, c_n) = stack(torch.randn(2, 5, 1))
    assert stack.output_size == num_directions * widths[-1]
    assert output.shape == (2, 5, stack.output_size)
    state_shapes = [(num_directions, 2, width) for width in widths]
    assert [h.shape for h in h_n] == state_shapes
    assert [c.shape for c in c_n] == state_shapes


def test_without_dropout_runs_of_equal_width_are_fused() -> None:
    assert StackedLSTM(1, (4, 4, 6, 6, 6, 4)).run_lengths == (2, 3, 1)


def test_with_dropout_every_layer_stays_single_and_cudnn_drops_nothing() -> None:
    stack = StackedLSTM(1, (4, 4, 6), dropout=0.1)
    assert stack.run_lengths == (1, 1, 1)
    assert all(run.dropout == 0 for run in stack.runs)


def test_dropout_acts_in_training_and_not_in_evaluation() -> None:
    stack, x = StackedLSTM(1, (8, 8), dropout=0.5), torch.randn(2, 5, 1)
    assert not torch.equal(stack(x)[0], stack.eval()(x)[0])


def test_dropout_acts_between_the_layers_and_not_after_the_last() -> None:
    one_layer, x = StackedLSTM(1, (8,), dropout=0.9), torch.randn(2, 5, 1)
    assert torch.equal(one_layer(x)[0], one_layer.eval()(x)[0])
    two_layers = StackedLSTM(1, (8, 8), dropout=0.9)
    assert (two_layers(x)[0] != 0).all()


def test_dropout_repeats_with_the_seed() -> None:
    stack, x = StackedLSTM(1, (8, 8), dropout=0.5), torch.randn(2, 5, 1)
    outputs = []
    for _ in range(2):
        torch.manual_seed(1)
        outputs.append(stack(x)[0])
    assert torch.equal(*outputs)


def test_a_series_read_in_two_parts_with_the_state_handed_on_is_read_as_one() -> None:
    stack, x = StackedLSTM(3, (4, 4, 6)), torch.randn(2, 9, 3)
    whole, whole_state = stack(x)
    first, state = stack(x[:, :5])
    second, last_state = stack(x[:, 5:], state)
    assert_close(torch.cat([first, second], dim=1), whole)
    assert_close(last_state, whole_state)


@both_directions
@with_and_without_state
@pytest.mark.parametrize("num_layers", [1, 2])
def test_channels_and_units_of_zeros_change_nothing(
    num_layers: int, has_state: bool, bidirectional: bool
) -> None:
    torch.manual_seed(0)
    lstm = nn.LSTM(3, 5, num_layers, batch_first=True, bidirectional=bidirectional)
    x = torch.randn(4, 7, 3, requires_grad=True)
    parts = num_layers * (2 if bidirectional else 1)
    state = (torch.randn(parts, 4, 5), torch.randn(parts, 4, 5)) if has_state else None
    results = []
    for run in (lstm, lambda *given: run_filled_up(lstm, *given)):
        output, (h_n, c_n) = run(x, state)
        loss = output.square().sum() + h_n.sum() + c_n.square().sum()
        results.append((output, h_n, c_n, *torch.autograd.grad(loss, [x, *lstm.parameters()])))
    assert_close(results[1], results[0])


@pytest.mark.parametrize(
    ("channels", "widths", "filled_up"),
    [
        (3, (BLOCK,), [3]),
        (BLOCK, (BLOCK, 7), [BLOCK]),
        (1, (81, 81), [1]),
        (1, (5, 81), [1, 5]),
    ],
)
def test_sizes_are_filled_up_in_bf16_on_a_cpu_alone(
    channels: int, widths: tuple[int, ...], filled_up: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def note(lstm: nn.LSTM, x: Tensor, state: object) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        seen.append(lstm.input_size)
        result: tuple[Tensor, tuple[Tensor, Tensor]] = lstm(x, state)
        return result

    monkeypatch.setattr("models.lstm.run_filled_up", note)
    stack, x = StackedLSTM(channels, widths), torch.randn(2, 4, channels)
    stack(x)
    assert seen == []
    # Said to be so, for not every CPU computes in bf16.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cpu")
    stack(x)
    assert seen == filled_up


def test_states_of_unequal_widths_cannot_be_stacked() -> None:
    _, (h_n, _) = StackedLSTM(1, (4, 6))(torch.randn(2, 5, 1))
    with pytest.raises(ValueError, match=r"layers of one width: got widths \[4, 6\]; use the"):
        stack_states(h_n)


def test_a_state_for_too_few_layers_is_refused() -> None:
    stack = StackedLSTM(1, (4, 6))
    state = [torch.zeros(1, 2, 4)], [torch.zeros(1, 2, 4)]
    with pytest.raises(ValueError, match="each of the 2 layers: got 1 and 1; give a tensor"):
        stack(torch.randn(2, 5, 1), state)


@pytest.mark.parametrize(
    ("input_size", "widths", "dropout", "rule"),
    [
        (0, (4,), 0.0, "input_size must be at least 1: got 0"),
        (1, (), 0.0, r"one or more positive numbers: got \[\]"),
        (1, (4, 0), 0.0, r"one or more positive numbers: got \[4, 0\]"),
        (1, (4,), 1.0, r"dropout must lie in \[0, 1\): got 1.0"),
        (1, (4,), -0.5, r"dropout must lie in \[0, 1\): got -0.5"),
    ],
)
def test_a_stack_without_a_meaning_is_refused(
    input_size: int, widths: tuple[int, ...], dropout: float, rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        StackedLSTM(input_size, widths, dropout=dropout)


def test_the_command_prints_layers_shapes_and_parameter_counts() -> None:
    command = [sys.executable, "-m", "models.lstm", "--widths", "64,128", "--bidirectional"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    rows = [re.split(r"\s{2,}", line) for line in printed.splitlines()]
    assert rows[1] == ["1", "[B, L, 1]", "[B, L, 128]", "[2, B, 64]", "34,304"]
    assert rows[2] == ["2", "[B, L, 128]", "[B, L, 256]", "[2, B, 128]", "264,192"]
    assert rows[3] == ["total", "298,496"]


@three_answers
@both_directions
def test_the_printed_total_is_the_modules(
    widths: tuple[int, ...], bidirectional: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--widths", ",".join(map(str, widths)), "--input-size", "3"]
    main([*arguments, "--bidirectional"] if bidirectional else arguments)
    stack = StackedLSTM(3, widths, bidirectional)
    total = sum(parameter.numel() for parameter in stack.parameters())
    assert re.search(rf"^total +{total:,}$", capsys.readouterr().out, re.MULTILINE)


def test_the_command_names_torchs_lstm_where_there_is_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--widths", "64,64", "--bidirectional"])
    line = capsys.readouterr().out.splitlines()[-1]
    code = line.removeprefix("The same as torch.").removesuffix(".")
    assert repr(eval(code, {"nn": nn})) == repr(StackedLSTM(1, (64, 64), True).runs[0])
    main(["--widths", "64,128"])
    assert "no single torch.nn.LSTM" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (["--widths", "64,wide"], "numbers between commas: got '64,wide'; write them as 64,128"),
        (["--widths", "64,0"], "positive numbers: got [64, 0]; give"),
        (["--widths", "64", "--input-size", "0"], "input_size must be at least 1: got 0"),
        ([], "the following arguments are required: --widths"),
    ],
)
def test_wrong_usage_of_the_command_exits_with_2_and_the_rule(
    arguments: list[str], rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert rule in capsys.readouterr().err
