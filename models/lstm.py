"""`StackedLSTM`: an LSTM with a width for each layer, which `torch.nn.LSTM` cannot express.

    python -m models.lstm --widths 64,128 --bidirectional

prints the layers, shapes and parameter counts of such a stack. The legend of shapes is in
`models/__init__.py`.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from models.config import num_layer_parameters

States = tuple[Tensor, ...]
"""One tensor a layer, layer i's of shape [D, B, U_i]."""

BLOCK = 16
"""Other sizes than its multiples are slower in bf16 on a CPU (oneDNN in torch 2.13, with AMX): a
training step took 20 ms with 81 cells and one channel, filled up with zeros 11; 32 ms with 177
cells and four channels, filled up 13."""


class StackedLSTM(nn.Module):
    """LSTM layers of any widths, each reading the output of the one below.

    Layers of equal width that follow each other are one multi-layer `nn.LSTM`, which is faster
    than one call a layer. With dropout they stay single, with `nn.Dropout` between: the dropout
    inside cuDNN's LSTM has one random state for the whole process, which cannot be restored
    (https://github.com/pytorch/pytorch/issues/104697).

    Args:
        input_size: F, channels at each step.
        widths: Hidden units U of each layer, the first layer first.
        bidirectional: Whether each layer also reads backwards; the next one reads both, 2 U.
        dropout: Share of a layer's output dropped in training before the next layer reads it.

    Raises:
        ValueError: A size below 1, no width, or a dropout outside [0, 1).
    """

    def __init__(
        self,
        input_size: int,
        widths: Sequence[int],
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_sizes(input_size, widths, dropout)
        self.input_size = input_size
        self.widths = tuple(widths)
        self.num_directions = 2 if bidirectional else 1
        self.output_size = self.num_directions * self.widths[-1]
        self.dropout = nn.Dropout(dropout)
        self.run_lengths = tuple(_run_lengths(self.widths, fuse=dropout == 0))
        self.runs = nn.ModuleList(self._build_runs())

    def _build_runs(self) -> Iterator[nn.LSTM]:
        """Yield the runs of equal layers, the first one first."""
        size, first = self.input_size, 0
        for length in self.run_lengths:
            width = self.widths[first]
            is_bidirectional = self.num_directions == 2
            yield nn.LSTM(size, width, length, batch_first=True, bidirectional=is_bidirectional)
            size, first = self.num_directions * width, first + length

    def forward(
        self, x: Tensor, state: tuple[Sequence[Tensor], Sequence[Tensor]] | None = None
    ) -> tuple[Tensor, tuple[States, States]]:
        """Run over all steps.

        Args:
            x: [B, L, F].
            state: Initial h and c, one tensor [D, B, U_i] a layer each; zeros without it.

        Returns:
            The last layer's output [B, L, D*U_last], and (h_n, c_n): the states after the last
            step read (of the backward direction: the first), one tensor [D, B, U_i] a layer each.

        Raises:
            ValueError: `state` does not hold one h and one c for each layer.
        """
        if state is not None:
            self._check_state(state)
        h_n: list[Tensor] = []
        c_n: list[Tensor] = []
        for run, length in zip(self.runs, self.run_lengths, strict=True):
            first = len(h_n)
            if first > 0:
                x = self.dropout(x)
            assert isinstance(run, nn.LSTM)
            part = _stacked_part(state, first, first + length)
            is_in_bf16 = x.device.type == "cpu" and torch.is_autocast_enabled("cpu")
            is_odd = run.input_size % BLOCK or run.hidden_size % BLOCK
            x, (h, c) = run_filled_up(run, x, part) if is_in_bf16 and is_odd else run(x, part)
            h_n.extend(h.split(self.num_directions))
            c_n.extend(c.split(self.num_directions))
        return x, (tuple(h_n), tuple(c_n))

    def _check_state(self, state: tuple[Sequence[Tensor], Sequence[Tensor]]) -> None:
        num_layers = len(self.widths)
        if any(len(part) != num_layers for part in state):
            raise ValueError(
                f"an initial state must hold one h and one c for each of the {num_layers} layers: "
                f"got {len(state[0])} and {len(state[1])}; give a tensor [D, B, U] for each layer"
            )


def run_filled_up(
    lstm: nn.LSTM, x: Tensor, state: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Run an `nn.LSTM` with channels and units of zeros beside its own: the same result, sooner.

    A unit whose weights and biases are zero stays at zero: its candidate is tanh(0).

    Args:
        lstm: Batch first, with biases, without dropout.
        x: [B, L, F].
        state: Initial h and c, [num_layers*D, B, U] each; None for zeros.

    Returns:
        As the LSTM does: the output [B, L, D*U], and the states after the last step.
    """
    num_directions = 2 if lstm.bidirectional else 1
    if state is None:
        zeros = x.new_zeros(lstm.num_layers * num_directions, len(x), lstm.hidden_size)
        state = zeros, zeros
    output, *states = torch.lstm(
        _filled_up(x),
        [_filled_up(part) for part in state],
        [_filled_up_weight(lstm, name, weight) for name, weight in lstm.named_parameters()],
        has_biases=True,
        num_layers=lstm.num_layers,
        dropout=0.0,
        train=lstm.training,
        bidirectional=lstm.bidirectional,
        batch_first=True,
    )
    by_direction = output.reshape(*output.shape[:2], num_directions, -1)
    h_n, c_n = (part[..., : lstm.hidden_size] for part in states)
    return by_direction[..., : lstm.hidden_size].flatten(start_dim=2), (h_n, c_n)


def _filled_up_weight(lstm: nn.LSTM, name: str, weight: Tensor) -> Tensor:
    """Fill up each of the four gates, and the inputs from each direction of the layer below."""
    gates = weight.reshape(4, lstm.hidden_size, *weight.shape[1:])
    if name.startswith("bias"):
        return _filled_up(gates).flatten()
    is_above_another = name.startswith("weight_ih") and not name.startswith("weight_ih_l0")
    num_parts = 2 if is_above_another and lstm.bidirectional else 1
    parts = gates.reshape(4, lstm.hidden_size, num_parts, -1)
    columns = _filled_up(parts).flatten(start_dim=2)  # [4, U, inputs]
    return _filled_up(columns.transpose(1, 2)).transpose(1, 2).flatten(end_dim=1)


def _filled_up(tensor: Tensor) -> Tensor:
    """Append zeros along the last dimension."""
    return pad(tensor, (0, -tensor.shape[-1] % BLOCK))


def stack_states(states: Sequence[Tensor]) -> Tensor:
    """Return states [D, B, U] of layers of one width as torch stacks them, [num_layers*D, B, U].

    Raises:
        ValueError: The layers' widths differ, so no such tensor exists.
    """
    widths = [state.shape[-1] for state in states]
    if len(set(widths)) != 1:
        raise ValueError(
            f"stacked states need layers of one width: got widths {widths}; use the states of "
            "each layer by themselves"
        )
    return torch.cat(tuple(states))


def _check_sizes(input_size: int, widths: Sequence[int], dropout: float) -> None:
    if input_size < 1:
        raise ValueError(f"input_size must be at least 1: got {input_size}; give the channels")
    if not widths or min(widths) < 1:
        raise ValueError(
            f"widths must be one or more positive numbers: got {list(widths)}; "
            "give the hidden units of each layer, such as 64, 128"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must lie in [0, 1): got {dropout}; give a share such as 0.2")


def _run_lengths(widths: Sequence[int], *, fuse: bool) -> Iterator[int]:
    """Yield how many layers each `nn.LSTM` holds: a run of equal widths, or one without fusing."""
    for _, run in groupby(widths):
        length = len(list(run))
        yield from [length] if fuse else [1] * length


def _stacked_part(
    state: tuple[Sequence[Tensor], Sequence[Tensor]] | None, first: int, end: int
) -> tuple[Tensor, Tensor] | None:
    """Return the state of layers first to end (exclusive) as their `nn.LSTM` takes it."""
    if state is None:
        return None
    hidden, cell = state
    return stack_states(hidden[first:end]), stack_states(cell[first:end])


def describe(stack: StackedLSTM) -> str:
    """Return a table of the stack's layers, their shapes and parameter counts."""
    num_parameters = num_layer_parameters(stack.input_size, stack.widths, stack.num_directions)
    size = stack.input_size
    lines = ["layer  input          output         h_n and c_n    parameters"]
    for layer, (width, count) in enumerate(zip(stack.widths, num_parameters, strict=True), start=1):
        output_size = stack.num_directions * width
        read, written = f"[B, L, {size}]", f"[B, L, {output_size}]"
        state = f"[{stack.num_directions}, B, {width}]"
        lines.append(f"{layer:<5}  {read:<13}  {written:<13}  {state:<13}  {count:>10,}")
        size = output_size
    lines.append(f"{'total':<50}{sum(num_parameters):>12,}")
    return "\n".join([*lines, _in_torch(stack)])


def _in_torch(stack: StackedLSTM) -> str:
    """Return the `torch.nn.LSTM` that is this stack, or that there is none."""
    if len(set(stack.widths)) > 1:
        return "The widths differ: no single torch.nn.LSTM expresses this stack."
    arguments = f"{stack.input_size}, {stack.widths[0]}, num_layers={len(stack.widths)}"
    if stack.num_directions == 2:
        arguments += ", bidirectional=True"
    return f"The same as torch.nn.LSTM({arguments}, batch_first=True)."


def _parse_widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"widths must be numbers between commas: got {text!r}; write them as 64,128"
        ) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the stack that the command line describes; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(
        prog="python -m models.lstm",
        description="Print the layers, shapes and parameter counts of an LSTM.",
    )
    parser.add_argument(
        "--widths", type=_parse_widths, required=True, metavar="U,U", help="units of each layer"
    )
    parser.add_argument("--bidirectional", action="store_true", help="read both ways")
    parser.add_argument("--input-size", type=int, default=1, metavar="F", help="channels (1)")
    options = parser.parse_args(arguments)
    try:
        stack = StackedLSTM(options.input_size, options.widths, options.bidirectional)
    except ValueError as error:
        parser.error(str(error))
    print(describe(stack))


if __name__ == "__main__":
    main()
