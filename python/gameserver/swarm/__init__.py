"""Load for a game: thousands of clients from one process, what they noticed, and whether that is good enough.

``gameserver swarm game.py --clients 2000 --rate 20/s --for 30s`` plays every message of a game with valid random values. A file
with a `Scenario` says more: which messages, how often, in which phases, and what must come out. docs/swarm.md tells all of it.

Latency counts from the time at which a message was to be sent, not from when it could be: a server that stalls is charged for all
that would have come meanwhile (Gil Tene: "How NOT to Measure Latency").
"""

from gameserver.swarm._bots import Bot
from gameserver.swarm._compare import Change, changes
from gameserver.swarm._network import NETWORKS, Network
from gameserver.swarm._play import Result, play
from gameserver.swarm._scenario import Action, Phase, Scenario, ask, churn, drops, hold, ramp, storm, tell
from gameserver.swarm._values import Value, between, letters, one_of

__all__ = [
    "Action",
    "Bot",
    "Change",
    "NETWORKS",
    "Network",
    "Phase",
    "Result",
    "Scenario",
    "Value",
    "ask",
    "between",
    "changes",
    "churn",
    "drops",
    "hold",
    "letters",
    "one_of",
    "play",
    "ramp",
    "storm",
    "tell",
]
