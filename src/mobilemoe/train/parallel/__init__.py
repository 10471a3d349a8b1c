"""Training on many processes: FSDP2, expert parallelism, distributed checkpoints, a watchdog.

Everything here wraps the single-device model and loop from outside; `torchrun` starts the ranks.
"""

from mobilemoe.train.parallel.checkpoint import load_distributed, save_distributed
from mobilemoe.train.parallel.clip import clip_grad_norm
from mobilemoe.train.parallel.ranks import Ranks
from mobilemoe.train.parallel.shard import prepare_model
from mobilemoe.train.parallel.tensors import gather_full
from mobilemoe.train.parallel.world import RankWorld, ShardedStore

__all__ = [
    "RankWorld",
    "Ranks",
    "ShardedStore",
    "clip_grad_norm",
    "gather_full",
    "load_distributed",
    "prepare_model",
    "save_distributed",
]
