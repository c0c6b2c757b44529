"""POT, loaded without the array libraries that it would load because they are installed."""

from __future__ import annotations

import os
import sys
from types import ModuleType

__all__ = ["load_pot"]


def load_pot() -> ModuleType:
    """Import POT; neither torch nor another array library comes with it."""
    if "ot" in sys.modules:
        return sys.modules["ot"]
    switches = {
        f"POT_BACKEND_DISABLE_{library}": "1"
        for library in ("PYTORCH", "JAX", "TENSORFLOW", "CUPY")
    }
    before = {name: os.environ.get(name) for name in switches}
    os.environ.update(switches)
    try:
        import ot
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    module: ModuleType = ot
    return module
