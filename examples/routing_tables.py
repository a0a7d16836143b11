"""Print what Muon does with real models, role by role, beside Keras' own Muon.

    python examples/routing_tables.py
    python examples/routing_tables.py --model ViT-S/16 --markdown

Builds GPT-2 small, a ViT-S/16 classifier and ResNet50 at full size with random weights,
asks both optimizers what they would do with every variable, and adds up the parameters.
"""

import argparse
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import keras_hub
from rich.console import Console
from rich.table import Table

from keras_muon import Muon

MUON, ADAMW = "Muon", "AdamW"
COLUMNS = ("role", "variables", "parameters", "keras_muon", "keras.optimizers.Muon")

# Roles by regular expressions of whole paths, the first that matches. They are written
# here, so that what counts as hidden follows neither from one optimizer nor the other.
PROJECTION = "(.*/)?(query|key|value|attention_output)"
ROLES = {
    "embeddings": ".*/embeddings",
    "class token": ".*/class_token",
    "output head": "predictions/kernel",
    "attention kernels": f"{PROJECTION}/kernel",
    "MLP kernels": r"(.*/)?(\w+_dense|dense_\d)/kernel",
    "convolutions": r"(.*/)?(\w+_conv|patch_embedding)/kernel",
    "attention biases": f"{PROJECTION}/bias",
    "other biases": ".*/bias",
    "norms": ".*/(gamma|beta)",
}
HIDDEN = ("attention kernels", "MLP kernels", "convolutions")


class Row(NamedTuple):
    """A role's variables together.

    Args:
        role: Such as "attention kernels".
        variables: How many.
        parameters: Entries of all of them.
        share: Of the model's trainable parameters, 0 to 1.
        ours: What keras_muon does, as {rule: variables}.
        builtin: What the built-in optimizer does, as {rule: variables}.
    """

    role: str
    variables: int
    parameters: int
    share: float
    ours: Counter
    builtin: Counter


class Totals(NamedTuple):
    """The figures below a table.

    Args:
        parameters: All trainable parameters.
        hidden: Those of hidden matrices.
        ours: Of the hidden ones, those that keras_muon orthogonalizes.
        builtin: Of the hidden ones, those that the built-in optimizer orthogonalizes.
        ours_wrong: By role, how many other variables keras_muon orthogonalizes.
        builtin_wrong: The same of the built-in optimizer.
    """

    parameters: int
    hidden: int
    ours: int
    builtin: int
    ours_wrong: Counter
    builtin_wrong: Counter


def gpt2_small() -> keras.Model:
    """Return GPT-2 of Radford et al. 2019, 124 million parameters."""
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=50257,
        num_layers=12,
        num_heads=12,
        hidden_dim=768,
        intermediate_dim=3072,
        max_sequence_length=1024,
    )
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def vit_small() -> keras.Model:
    """Return ViT-S/16 of Touvron et al. 2021 with a head for ImageNet's classes."""
    backbone = keras_hub.models.ViTBackbone(
        image_shape=(224, 224, 3),
        patch_size=16,
        num_layers=12,
        num_heads=6,
        hidden_dim=384,
        mlp_dim=1536,
    )
    return keras_hub.models.ViTImageClassifier(
        backbone=backbone, num_classes=1000, preprocessor=None
    )


def resnet50() -> keras.Model:
    """Return ResNet50 of He et al. 2016."""
    return keras.applications.ResNet50(weights=None)


MODELS: dict[str, Callable[[], keras.Model]] = {
    "GPT-2 small": gpt2_small,
    "ViT-S/16": vit_small,
    "ResNet50": resnet50,
}


def role_of(path: str) -> str:
    """Return the role of a variable in its architecture.

    Raises:
        ValueError: If no role's pattern matches.
    """
    for role, pattern in ROLES.items():
        if re.fullmatch(pattern, path):
            return role
    raise ValueError(f"No pattern in ROLES matches {path!r}; add one for its role.")


def rules_of_ours(model: keras.Model) -> list[str]:
    """Return what `keras_muon.Muon` does with each trainable variable."""
    optimizer = Muon.for_model(model)
    optimizer.build(model.trainable_variables)
    return [MUON if route.rule == "muon" else ADAMW for route in optimizer.routes]


def rules_of_builtin(model: keras.Model) -> list[str]:
    """Return what `keras.optimizers.Muon` does with each trainable variable.

    It is built on the variables and then asked by its state: it keeps a velocity, the
    second moment, for those that its AdamW updates, and none for the others. Its own
    `update_step` decides by the same.
    """
    optimizer = keras.optimizers.Muon()
    optimizer.build(model.trainable_variables)
    velocities = optimizer.adam_velocities
    return [MUON if velocity is None else ADAMW for velocity in velocities]


def analyse(model: keras.Model) -> tuple[list[Row], Totals]:
    """Return one row per role, and the totals, of a built model."""
    sizes = [math.prod(variable.shape) for variable in model.trainable_variables]
    roles = [role_of(variable.path) for variable in model.trainable_variables]
    ours, builtin = rules_of_ours(model), rules_of_builtin(model)
    rows = []
    for role in [role for role in ROLES if role in roles]:
        members = [i for i, other in enumerate(roles) if other == role]
        count = sum(sizes[i] for i in members)
        counters = [Counter(rules[i] for i in members) for rules in (ours, builtin)]
        rows.append(Row(role, len(members), count, count / sum(sizes), *counters))
    hidden = sum(row.parameters for row in rows if row.role in HIDDEN)
    parts = [right_and_wrong(roles, sizes, rules) for rules in (ours, builtin)]
    (right, theirs_right), (wrong, theirs_wrong) = zip(*parts, strict=True)
    return rows, Totals(sum(sizes), hidden, right, theirs_right, wrong, theirs_wrong)


def right_and_wrong(
    roles: Sequence[str], sizes: Sequence[int], rules: Sequence[str]
) -> tuple[int, Counter]:
    """Return the hidden parameters, and by role the other variables, on Muon."""
    chosen = [i for i, rule in enumerate(rules) if rule == MUON]
    right = sum(sizes[i] for i in chosen if roles[i] in HIDDEN)
    return right, Counter(roles[i] for i in chosen if roles[i] not in HIDDEN)


def cells(row: Row) -> tuple[str, ...]:
    share = f"{row.share:.1%}" if row.share >= 5e-4 else "< 0.1%"
    rules = [in_words(counter) for counter in (row.ours, row.builtin)]
    return (row.role, str(row.variables), share, *rules)


def in_words(counter: Counter) -> str:
    """Return one rule, or several with their numbers of variables."""
    if len(counter) == 1:
        return next(iter(counter))
    return ", ".join(f"{count} {rule}" for rule, count in counter.items())


def summary(totals: Totals) -> str:
    """Return the totals in words."""
    text = (
        f"Hidden matrices are {totals.hidden / totals.parameters:.1%} of "
        f"{totals.parameters:,} parameters. "
    )
    optimizers = (
        (COLUMNS[3], totals.ours, totals.ours_wrong),
        (COLUMNS[4], totals.builtin, totals.builtin_wrong),
    )
    for name, right, wrong in optimizers:
        listed = ", ".join(f"{count} {role}" for role, count in wrong.items())
        text += (
            f"{name} gives Muon to {right / totals.hidden:.1%} of them"
            f"{f' and wrongly to {listed}' if listed else ''}. "
        )
    return text.strip()


def markdown(name: str, rows: Sequence[Row], totals: Totals) -> str:
    """Return a table and its totals as Markdown."""
    header = [name, *COLUMNS[1:3], *(f"`{column}`" for column in COLUMNS[3:])]
    lines = [header, ["---", "--:", "--:", "---", "---"], *map(cells, rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{summary(totals)}\n"


def rich_table(name: str, rows: Sequence[Row], totals: Totals) -> Table:
    table = Table(title=name, title_justify="left", caption_justify="left")
    for column in COLUMNS:
        right = column in ("variables", "parameters")
        table.add_column(column, justify="right" if right else "left")
    for row in rows:
        table.add_row(*cells(row))
    table.caption = summary(totals)
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Routing tables of real models.")
    parser.add_argument("--model", choices=MODELS, help="only this one")
    parser.add_argument("--markdown", action="store_true", help="for a README")
    options = parser.parse_args(arguments)
    for name, build in MODELS.items():
        if options.model in (None, name):
            rows, totals = analyse(build())
            if options.markdown:
                print(markdown(name, rows, totals))
            else:
                Console().print(rich_table(name, rows, totals))


if __name__ == "__main__":
    main()
