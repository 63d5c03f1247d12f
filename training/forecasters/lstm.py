"""LSTM (Hochreiter and Schmidhuber 1997): the state is hidden and cell state, end to end, carried from tick to tick."""

import torch
from torch import Tensor, nn

from training.forecasters.contract import Forecaster, Packed, Settings
from training.forecasters.heads import Heads
from training.forecasters.past import Past
from training.normalise import INPUTS, Normalise


class Lstm(Forecaster):
    """Inputs -> projection -> LSTM -> heads."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.state_width = 2 * settings.hidden
        self.normalise = Normalise()
        self.project = nn.Linear(len(INPUTS), settings.hidden)
        self.lstm = nn.LSTM(settings.hidden, settings.hidden)
        self.heads = Heads(settings.hidden, settings.head)

    def walk_packed(self, inputs: Tensor, at: Packed, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See Forecaster."""
        projected = torch.tanh(self.project(inputs))
        rows = nn.functional.embedding
        width = projected.shape[1]
        past = Past(at)
        cut, instruments = at.pack.shape
        rest_steps, busy = at.rest.shape
        # The cell state comes out after the last step only, so each row is told how many steps of it are no padding.
        first_steps = past.count.clamp(max=cut)
        second_steps = (past.count[:busy] - cut).clamp(min=1, max=rest_steps)
        first, first_cell = self._walk(rows(at.pack, projected), first_steps, hidden[:, :width], hidden[:, width:])
        first = first.reshape(-1, width)
        second, second_cell = self._walk(
            rows(at.rest, projected), second_steps, rows(at.carry, first), first_cell[:busy]
        )
        states = torch.cat((first, second.reshape(-1, width)))
        own = torch.arange(instruments)
        cell = rows(torch.where(past.count > cut, instruments + own, own), torch.cat((first_cell, second_cell)))
        return rows(at.unpack, states), torch.cat((rows(at.last, states), cell), 1)

    def _walk(self, steps: Tensor, lengths: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden states of all steps, [steps, rows, hidden], and the cell state of each row after its last step."""
        if torch.compiler.is_exporting():
            return self._onnx(steps, lengths, hidden, cell)
        packed = nn.utils.rnn.pack_padded_sequence(steps, lengths)
        out, (_, last) = self.lstm(packed, (hidden[None], cell[None]))
        padded, _ = nn.utils.rnn.pad_packed_sequence(out, total_length=steps.shape[0])
        return padded, last[0]

    def _onnx(self, steps: Tensor, lengths: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """ONNX's own LSTM, for the exporter has none that knows lengths."""
        weights = dict(self.lstm.named_parameters())
        bias = torch.cat((_gates(weights["bias_ih_l0"]), _gates(weights["bias_hh_l0"])))
        out, _, last = torch.onnx.ops.symbolic_multi_out(
            "LSTM",
            (
                steps,
                _gates(weights["weight_ih_l0"])[None],
                _gates(weights["weight_hh_l0"])[None],
                bias[None],
                lengths.to(torch.int32),
                hidden[None],
                cell[None],
            ),
            {"hidden_size": self.lstm.hidden_size},
            dtypes=(torch.float32,) * 3,
            shapes=((steps.shape[0], 1, *hidden.shape), (1, *hidden.shape), (1, *hidden.shape)),
        )
        return out[:, 0], last[0]

    def walk_lanes(self, inputs: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """See Forecaster."""
        width = self.lstm.hidden_size
        # cuDNN and oneDNN want both halves in one piece of memory each.
        start = hidden[None, :, :width].contiguous(), hidden[None, :, width:].contiguous()
        states, (last, cell) = self.lstm(torch.tanh(self.project(inputs)), start)
        return states, torch.cat((last[0], cell[0]), 1)


def _gates(parameter: Tensor) -> Tensor:
    """Rows from PyTorch's order of gates (input, forget, cell, output) to ONNX's (input, output, forget, cell)."""
    gates = parameter.reshape(4, -1, *parameter.shape[1:])
    return gates.index_select(0, torch.tensor([0, 3, 1, 2])).flatten(0, 1)
