"""The policy: short, flat or long, over recorded ticks; by double Q-learning and by policy gradient.

- `tape`: the market that both learn in: recorded decisions, costs, limits, and what a way to act earns on them.
- `environment`: the same as an environment of gymnasium, for agents of other makers.
- `network`: what ships, with its named parts: encoder (state), decoder (action values), predictor (reward).
- `q_learning`, `ppo`: an algorithm each, on one page.
- `selection`: all seeds of both, the choice on validation, and what the card says of them.
"""
