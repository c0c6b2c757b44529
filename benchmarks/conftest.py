"""Options of `make bench`, and what is measured once."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from ways import RIVALS, SHAPES, peak_speed

# The rules that are timed: name, settings.
RULES = {
    "public_code, 20 nodes": {"rule": "public_code", "nodes": 20},
    "gauss_legendre, 8 nodes": {"rule": "gauss_legendre", "nodes": 8},
    "adaptive, 4e-2": {"rule": "adaptive", "tolerance": 4e-2},
    "adaptive, 1e-3": {"rule": "adaptive", "tolerance": 1e-3},
}
GROWTH = {
    "prompts": (1, 2, 4, 8, 16),
    "nodes": (5, 10, 20, 40),
    "layers": (6, 12, 24),
    "tokens": (12, 24, 48, 96),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what may be chosen."""
    group = parser.getgroup("kntrace")
    group.addoption("--device", default="cpu", help="cpu, cuda or cuda:N")
    group.addoption("--shapes", help=f"of {', '.join(SHAPES)}; 70m,410m unless given")
    group.addoption("--tokens", help="lengths of prompts; 12,24,48 unless given")
    group.addoption("--together", help="prompts replayed together; 1,4,8 unless given")
    group.addoption("--rounds", type=int, default=2, help="the fastest of so many counts")
    group.addoption("--quick", action="store_true", help="the 70m shape and little else")
    group.addoption(
        "--every-layer", action="store_true", help="time rivals on all layers, not on three"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make the grid; of one shape after the other, so that each model is built once."""
    quick = metafunc.config.getoption("quick")

    def chosen(name: str, usual: str, hasty: str) -> list[str]:
        given = metafunc.config.getoption(name) or (hasty if quick else usual)
        return [part.strip() for part in given.split(",")]

    shapes = chosen("shapes", "70m,410m", "70m")
    wanted = metafunc.fixturenames
    if "growing" in wanted:
        axes = [
            (shapes[-1], axis, size, rule)
            for axis, sizes in GROWTH.items()
            for rule in ("gauss_legendre, 8 nodes", "adaptive, 1e-3")
            for size in (sizes[:3] if quick else sizes)
            if axis != "nodes" or not rule.startswith("adaptive")
        ]
        metafunc.parametrize("growing", axes, ids=["-".join(map(str, axis)) for axis in axes])
        return
    metafunc.parametrize("shape", shapes, scope="session")
    lengths = [int(length) for length in chosen("tokens", "12,24,48", "24")]
    metafunc.parametrize("tokens", lengths, scope="session")
    if "way" in wanted:
        metafunc.parametrize("way", RIVALS)
    if "rule" in wanted:
        metafunc.parametrize("rule", RULES)
        counts = [int(count) for count in chosen("together", "1,4,8", "1,4")]
        metafunc.parametrize("together", counts)


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """Put into the file what the tables say of the machine, and not its name."""
    device = config.getoption("device")
    machine_info.pop("node", None)
    machine_info["torch"] = torch.__version__
    machine_info["threads"] = torch.get_num_threads()
    cuda = device.startswith("cuda") and torch.cuda.is_available()
    machine_info["device"] = torch.cuda.get_device_name(device) if cuda else device


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Where everything runs."""
    name: str = request.config.getoption("device")
    if name != "cpu" and not (name.startswith("cuda") and torch.cuda.is_available()):
        pytest.exit(f"--device {name}: this machine has none, or it cannot be timed", returncode=2)
    return name


@pytest.fixture
def limit(device: str) -> float:
    """Floating-point operations a second of the machine, measured before each way anew.

    A shared machine's speed moves by half within minutes.
    """
    return peak_speed(device)


@pytest.fixture
def rounds(request: pytest.FixtureRequest) -> int:
    """How often our own ways are timed."""
    return 1 if request.config.getoption("quick") else int(request.config.getoption("rounds"))
