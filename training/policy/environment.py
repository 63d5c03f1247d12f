"""The tape as an environment of gymnasium: an episode is one session of one instrument.

The same rules as `tape.walk`, told one decision at a time, for agents of other makers; ours are trained on whole tapes,
which is some hundred times faster. Rewards are equal to the last bit (tests/property/test_policy_properties.py).
"""

from typing import Any, Final

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from training.policy.network import MOST
from training.policy.tape import FLAT, POSITIONS, Market, Tape

Observation = NDArray[np.float32]


class Sessions(gymnasium.Env[Observation, np.int64]):
    """Observes what the network sees, the position held (-1, 0, 1) and the share of the drawdown limit that is used up.

    Actions are 0 short, 1 flat, 2 long, of one unit: where no policy earns the costs of one, other sizes were
    not tried. `info` holds the gain, the reward before the penalty for risk.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  gymnasium's own name and type

    def __init__(self, inputs: NDArray[np.float32], tape: Tape, market: Market) -> None:
        """Take decisions as `network.Policy.inputs` (float32[k, width]) and `tape.tape` make them."""
        self.inputs: Final = inputs
        self.tape: Final = tape
        self.market: Final = market
        self.starts: Final = np.flatnonzero(np.concatenate(([True], ~tape.follows[:-1])))
        most = np.array([*[MOST] * inputs.shape[1], 1.0, 1.0], np.float32)
        least = np.array([*[-MOST] * inputs.shape[1], -1.0, 0.0], np.float32)
        self.observation_space = spaces.Box(least, most)
        self.action_space = spaces.Discrete(len(POSITIONS))
        self._begin(0)

    def _begin(self, session: int) -> None:
        self._row = int(self.starts[session])
        self._held = FLAT
        self._profit = self._high = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin a session, flat: options["session"], the number of one, or a random one."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(len(self.starts)))
        self._begin((options or {}).get("session", drawn))
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Carry out an action and hold it until the next decision."""
        tape, row, size = self.tape, self._row, self.market.inventory_limit
        unit = size * POSITIONS[action]
        gain = unit * tape.moved[row] - abs(unit - size * POSITIONS[self._held]) * tape.cost[row]
        self._profit += gain
        self._high = max(self._high, self._profit)
        pause = not tape.follows[row]
        ended = bool(pause or self._high - self._profit > self.market.drawdown_limit)
        if ended:
            gain -= abs(unit) * tape.cost[row if pause else row + 1]
        self._held = FLAT if ended else int(action)
        self._row = row if pause else row + 1
        reward = float(gain - size * tape.penalty[row, action])
        return self._observe(), reward, ended, False, {"gain": float(gain)}

    def _observe(self) -> Observation:
        used = min(1.0, (self._high - self._profit) / self.market.drawdown_limit)
        return np.concatenate((self.inputs[self._row], [POSITIONS[self._held], used])).astype(np.float32)
