"""Options that become arguments of the functions that make graphs."""

import argparse
from typing import Any

from keras_muon.export.arguments import DEFAULT_OPSET, OPSETS
from keras_muon.scaling import ADAMW_RMS, SCALINGS
from keras_muon.schedules import SCHEDULES

NAMES = "|".join(SCHEDULES)
# Their settings in argparse. Defaults are named for readers only.
OPTIONS: dict[str, dict[str, Any]] = {
    "shape": {"metavar": "INxOUT", "required": True},
    "batch": {
        "metavar": "K|NAME",
        "help": "matrices stacked on a first axis; a name leaves their number open",
    },
    "schedule": {"help": f"{NAMES}, or your own: 'a,b,c;a,b,c' (the last repeats)"},
    "steps": {"type": int, "help": "number of steps (default: the schedule's)"},
    "method": {
        "help": "standard: a Gram matrix per step; planned: as the optimizer for these "
        "extents, with steps that share one, and compression"
    },
    "side": {"help": "side of the Gram matrix: auto|in|out (default: auto)"},
    "dtype": {"help": "float32|float64 (default: float32)"},
    "emulate": {"help": "bfloat16|float16: round every product to it and back"},
    "opset": {
        "type": int,
        "help": f"{OPSETS[0]} to {OPSETS[-1]} (default: {DEFAULT_OPSET})",
    },
    "dynamic": {"action": "store_true", "help": "let --shape name open extents"},
    "panels": {
        "type": int,
        "help": "1 to 4: mirror what lies below the diagonal of large symmetric "
        "products, of a single matrix; faster on CPUs (default: 1)",
    },
    "momentum": {"type": float, "help": "decay of the momentum (default: 0.9)"},
    "nesterov": {"action": "store_false", "help": "do not look one step ahead"},
    "scaling": {"help": f"{'|'.join(SCALINGS)} (default: moonlight)"},
    "rms": {"type": float, "help": f"of a moonlight update (default: {ADAMW_RMS})"},
    "beta_1": {"type": float, "help": "decay of the first moment (default: 0.9)"},
    "beta_2": {"type": float, "help": "decay of the second moment (default: 0.95)"},
    "epsilon": {"type": float, "help": "added to the root (default: 1e-07)"},
}
SHAPES = {
    "newton_schulz": "extents of a matrix, such as 768x3072; with --dynamic m,n too",
    "step": "extents, such as 768x3072; for adamw of any rank, or 'scalar'",
}

# The arguments of each function, in the order of the help.
ARGUMENTS = {
    "newton_schulz": (
        "shape", "batch", "schedule", "steps", "method", "side", "dtype", "emulate",
        "opset", "dynamic", "panels",
    ),
    "muon_step": (
        "shape", "batch", "momentum", "nesterov", "scaling", "rms", "schedule",
        "steps", "method", "dtype", "emulate", "opset",
    ),
    "adamw_step": ("shape", "beta_1", "beta_2", "epsilon", "dtype", "opset"),
}  # fmt: skip
# Defaults that differ between graphs.
DEFAULTS = {
    "newton_schulz": {"schedule": "jordan", "method": "standard"},
    "muon_step": {"schedule": "auto", "method": "planned"},
}
RULES = {"muon": "muon_step", "adamw": "adamw_step"}


def flag_of(name: str) -> str:
    """Return how an argument of a function is written on the command line."""
    return "--no-nesterov" if name == "nesterov" else f"--{name.replace('_', '-')}"


def add_options(
    graph: argparse.ArgumentParser, kinds: list[str], shape_help: str
) -> None:
    """Add the options of graphs; those not given leave the function's own default.

    Args:
        graph: The parser of a command.
        kinds: The functions, by the kind of their graphs.
        shape_help: What extents are allowed.
    """
    for name in dict.fromkeys(name for kind in kinds for name in ARGUMENTS[kind]):
        settings = {"dest": name, "default": argparse.SUPPRESS, **OPTIONS[name]}
        users = [rule for rule, kind in RULES.items() if name in ARGUMENTS[kind]]
        if name == "shape":
            settings["help"] = shape_help
        for default in [
            DEFAULTS[k][name] for k in kinds if name in DEFAULTS.get(k, ())
        ]:
            settings["help"] += f" (default: {default})"
        if len(kinds) > 1 and len(users) == 1:
            settings["help"] = f"{users[0]}: {settings['help']}"
        graph.add_argument(flag_of(name), **settings)
