"""`get_config` and `from_config`: every argument survives, as plain JSON."""

import inspect
import json

import keras
import numpy as np
import pytest

from keras_muon import SCHEDULES, MatrixView, Muon, Route, Schedule
from keras_muon.base_arguments import BASE_ARGUMENTS

schedules = keras.optimizers.schedules

# No argument has its default value here, but those that cases below vary.
EVERYTHING = {
    "name": "my_muon",
    "learning_rate": 0.25,
    "weight_decay": 0.5,
    "momentum": 0.95,
    "nesterov": False,
    "scaling": "moonlight",
    "rms": 0.3,
    "schedule": "jordan",
    "ns_steps": 7,
    "compute_dtype": "float32",
    "adam_learning_rate": 0.125,
    "adam_beta_1": 0.8,
    "adam_beta_2": 0.99,
    "adam_epsilon": 1e-5,
    "adam_weight_decay": 0.25,
    "batched": False,
    "strict": True,
    "nonfinite": "skip",
    "exclude": ["bias", "head"],
    "routes": {"hidden": "muon"},
    "clipnorm": 2.0,
    "clipvalue": None,
    "global_clipnorm": None,
    "use_ema": True,
    "ema_momentum": 0.75,
    "ema_overwrite_frequency": 3,
    "loss_scale_factor": 4.0,
    "gradient_accumulation_steps": 2,
}

CUSTOM = Schedule(coefficients=((3.0, -3.2, 1.2), (1.875, -1.25, 0.375)), tail="repeat")

CASES = {
    "defaults": {},
    "everything": EVERYTHING,
    "custom_schedule": {"schedule": CUSTOM, "ns_steps": 4},
    "minimal_clipping": {"global_clipnorm": 1.0},
    "no_decay": {"weight_decay": None, "adam_weight_decay": None},
    "schedules_of_rates": {
        "learning_rate": schedules.CosineDecay(0.1, 100),
        "adam_learning_rate": schedules.ExponentialDecay(0.01, 10, 0.5),
    },
    "constant_beside_schedule": {
        "learning_rate": schedules.CosineDecay(0.1, 100),
        "adam_learning_rate": 0.01,
    },
    "patterns": {
        "exclude": "head.*",
        "routes": {
            "a": "muon",
            "b": "adamw",
            "c": MatrixView((2, 3, 4), (0,), (1, 2)),
            "d": {"in_axes": [0, 1], "out_axes": [2]},
        },
    },
    "table": {
        "routes": [
            Route(
                "k", (3, 3, 8, 12), "muon", MatrixView((3, 3, 8, 12), (0, 1, 2), (3,))
            ),
            Route("b", (12,), "adamw", reason="bias"),
        ]
    },
}


def through_json(config):
    return json.loads(json.dumps(config))


@pytest.mark.parametrize("arguments", CASES.values(), ids=CASES)
def test_an_unbuilt_optimizer_survives_json(arguments):
    """Its config is JSON, and the optimizer made from it has the same config."""
    config = through_json(Muon(**arguments).get_config())
    again = Muon.from_config(through_json(config))
    assert type(again) is Muon
    assert through_json(again.get_config()) == config


def test_numbers_of_numpy_are_numbers_in_the_config():
    """As JSON has them, whatever they came as."""
    given = {
        "rms": np.float32(0.25),
        "ns_steps": np.int64(3),
        "momentum": np.float64(0),
    }
    config = through_json(Muon(**given).get_config())
    assert {name: config[name] for name in given} == {
        "rms": 0.25,
        "ns_steps": 3,
        "momentum": 0.0,
    }


def test_the_config_has_every_argument():
    """What the constructor takes is what the config names, and nothing else."""
    own = inspect.signature(Muon).parameters.keys() - {"base_arguments"}
    assert Muon().get_config().keys() == own | set(BASE_ARGUMENTS)
    assert EVERYTHING.keys() == own | set(BASE_ARGUMENTS)


def test_the_config_has_the_values_that_were_given():
    """All of them here are numbers that float32 keeps."""
    assert Muon(**EVERYTHING).get_config() == EVERYTHING


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_known_schedule_is_saved_by_its_name(name):
    """A config stays readable."""
    assert Muon(schedule=name).get_config()["schedule"] == name
    assert Muon(schedule=SCHEDULES[name]).get_config()["schedule"] == name


def test_a_custom_schedule_keeps_its_numbers():
    """Also one that borrows the name of a known schedule."""
    borrowed = Schedule(coefficients=CUSTOM.coefficients, name="you")
    again = Muon.from_config(through_json(Muon(schedule=borrowed).get_config()))
    assert again.schedule == borrowed != SCHEDULES["you"]


def test_schedules_of_rates_come_back_as_such():
    """Both rates are Keras objects again, with the same values at every step."""
    arguments = CASES["schedules_of_rates"]
    again = Muon.from_config(through_json(Muon(**arguments).get_config()))
    variable = keras.Variable(np.ones(3, "float32"), name="bias")
    for optimizer in (first := Muon(**arguments), again):
        optimizer.build([variable])
    for step in (0, 7, 50):
        for optimizer in (first, again):
            optimizer.iterations.assign(step)
        rates = [
            (float(o.learning_rate), float(o.adam_rate(o.learning_rate)))
            for o in (first, again)
        ]
        assert rates[0] == rates[1]
        assert rates[0][0] != rates[0][1]


class Warmup(schedules.LearningRateSchedule):
    """A schedule that is not registered with Keras."""

    def __init__(self, top):
        self.top = top

    def __call__(self, step):
        return self.top * keras.ops.minimum(keras.ops.cast(step, "float32") / 10, 1)

    def get_config(self):
        return {"top": self.top}


def test_custom_objects_reach_both_rates():
    """An unregistered schedule comes back if it is named in `custom_objects`."""
    config = Muon(Warmup(0.5), adam_learning_rate=Warmup(0.25)).get_config()
    again = Muon.from_config(config, custom_objects={"Warmup": Warmup})
    assert again.get_config() == config
    assert again.get_config()["adam_learning_rate"]["config"] == {"top": 0.25}


def test_from_config_leaves_the_config_as_it_is():
    """The same dictionary makes a second optimizer."""
    config = Muon(**CASES["schedules_of_rates"]).get_config()
    before = json.dumps(config)
    Muon.from_config(config)
    assert json.dumps(config) == before


def share_of_adamw(optimizer):
    """AdamW's rate beside a rate of 1."""
    return float(optimizer.adam_rate(keras.ops.convert_to_tensor(1.0)))


def test_the_proportion_of_rates_survives_a_changed_rate():
    """A callback has lowered the rate: AdamW's goes down with it, and stays so."""
    optimizer = Muon(0.5, adam_learning_rate=0.125)
    optimizer.learning_rate = 0.25
    config = optimizer.get_config()
    assert (config["learning_rate"], config["adam_learning_rate"]) == (0.25, 0.0625)
    assert share_of_adamw(Muon.from_config(config)) == 0.25


def test_the_proportion_of_rates_survives_a_rate_of_zero():
    """A callback has lowered the rate to zero; raised again, AdamW gets its share."""
    optimizer = Muon(0.5, adam_learning_rate=0.125)
    optimizer.learning_rate = 0.0
    again = Muon.from_config(through_json(optimizer.get_config()))
    assert share_of_adamw(again) == share_of_adamw(optimizer) == 0.25


def test_a_schedule_may_replace_a_float_rate():
    """Keras allows to assign one later; what AdamW does then can still be saved."""
    optimizer = Muon(0.5, adam_learning_rate=0.125)
    optimizer.learning_rate = schedules.CosineDecay(0.1, 100)
    again = Muon.from_config(through_json(optimizer.get_config()))
    assert share_of_adamw(again) == share_of_adamw(optimizer)


def variables():
    shapes = {"hidden": (4, 6), "conv": (2, 3, 8), "head": (6, 5), "bias": (5,)}
    return [
        keras.Variable(np.ones(s, "float32"), name=name) for name, s in shapes.items()
    ]


def test_a_built_optimizer_takes_its_routes_along():
    """Routes are in the config, so no model is needed to find them again."""
    first = Muon(
        exclude="head",
        routes={"hidden": "muon", "conv": {"in_axes": (0, 1), "out_axes": (2,)}},
    )
    first.build(variables())
    again = Muon.from_config(through_json(first.get_config()))
    again.build(variables())
    assert again.routes == first.routes
    assert [r.rule for r in again.routes] == ["muon", "muon", "adamw", "adamw"]
    assert again.get_config()["routes"] == first.get_config()["routes"]


def test_routes_of_another_model_are_refused():
    """A config does not silently fit variables that it was not made for."""
    first = Muon(routes={"hidden": "muon", "head|conv": "adamw"})
    first.build(variables())
    again = Muon.from_config(first.get_config())
    with pytest.raises(ValueError, match="another model"):
        again.build([keras.Variable(np.ones((4, 7), "float32"), name="hidden")])
