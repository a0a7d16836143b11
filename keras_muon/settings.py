"""Settings of an optimizer, which are final once it is made."""

from typing import Any

from keras_muon.base_arguments import BASE_ARGUMENTS

# Arguments that are numbers, flags or names, kept as attributes and saved as such.
PLAIN_ARGUMENTS = (
    "adam_beta_1",
    "adam_beta_2",
    "adam_epsilon",
    "adam_weight_decay",
    "batched",
    "compute_dtype",
    "momentum",
    "nesterov",
    "nonfinite",
    "ns_steps",
    "rms",
    "scaling",
    "strict",
)

# `learning_rate` is free, for callbacks to set, and so is the name.
FINAL = frozenset(
    {
        *PLAIN_ARGUMENTS,
        *BASE_ARGUMENTS,
        "adam_learning_rate",
        "exclude",
        "routes",
        "scale",
        "schedule",
        "weight_decay",
    }
) - {"name"}


class FinalSettings:
    """Mixin of an optimizer whose settings cannot be assigned any more.

    Steps that JAX or TensorFlow compiled keep the numbers that they were traced with,
    and plans are made of settings that are checked together. An assignment would change
    nothing there, without a word.
    """

    _is_made = False  # True at the end of the constructor.

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute that is no setting."""
        # Keras' own wrapper takes over the loss scale of an optimizer.
        taken = name == "loss_scale_factor" and value is None
        if self._is_made and name in FINAL and not taken:
            kind = type(self).__name__
            raise AttributeError(
                f"`{name}` is decided when the optimizer is made, and compiled into "
                f"its steps; received {value!r}. Make another: new = {kind}."
                f'from_config(optimizer.get_config() | {{"{name}": ...}}). Compile the '
                "model with it, and take over the state: store = {}; "
                "optimizer.save_own_variables(store); "
                "new.build(model.trainable_variables); new.load_own_variables(store). "
                f"A subclass passes `{name}` to super().__init__."
            )
        super().__setattr__(name, value)
