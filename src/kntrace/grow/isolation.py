"""Growing leaves the caller's torch and transformers as it found them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from transformers.utils import logging

__all__ = ["own_torch", "quiet_transformers"]


@contextmanager
def own_torch(seed: int, threads: int) -> Iterator[None]:
    """Give the work random numbers, threads and number formats of its own.

    Whatever the caller had set (another default number format, no gradients, a seed) neither
    changes what is computed inside nor is changed by it.
    """
    with ExitStack() as restore:
        restore.callback(torch.set_num_threads, torch.get_num_threads())
        restore.callback(torch.set_default_dtype, torch.get_default_dtype())
        restore.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        restore.enter_context(torch.random.fork_rng(devices=[]))
        restore.enter_context(torch.inference_mode(mode=False))
        restore.enter_context(torch.enable_grad())
        torch.set_num_threads(threads)
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(True)
        # Not torch.manual_seed, which would seed the caller's accelerators too.
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers from logging and drawing bars while checkpoints are saved."""
    with ExitStack() as restore:
        restore.callback(logging.set_verbosity, logging.get_verbosity())
        if logging.is_progress_bar_enabled():
            restore.callback(logging.enable_progress_bar)
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield
